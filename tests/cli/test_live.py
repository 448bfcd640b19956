"""Progress of a sweep on and without a terminal."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from avsbench_harness import console as console_module
from avsbench_harness.cli.live import count_by_state, show_progress
from avsbench_harness.engine.heartbeat import Heartbeat
from avsbench_harness.files import write_json
from avsbench_harness.launch.status import Outcome

OUTCOMES = [
    Outcome("run-a", "running"),
    Outcome("run-b", "failed", reason="no [data] here"),
    Outcome("run-b2", "queued"),
    Outcome("run-c", "done", seconds=61),
]


@pytest.fixture
def running(tmp_path: Path) -> Path:
    beat = Heartbeat(
        host="h", pid=1, time=time.time(), step=5, total=20, clips_per_second=2.5, seconds_left=75.0
    )
    write_json(tmp_path / "runs" / "run-a" / "heartbeat.json", beat.model_dump(mode="json"))
    return tmp_path


def shown(monkeypatch: pytest.MonkeyPatch, out: Path, *, terminal: bool) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=120, height=50, color_system=None)
    monkeypatch.setattr(console_module, "console", console)
    with show_progress(out) as notify:
        for outcome in OUTCOMES:
            notify(outcome)
    return file.getvalue()


def test_a_terminal_shows_one_table(running: Path, monkeypatch) -> None:
    last = shown(monkeypatch, running, terminal=True).split("run-a")[-1]
    assert "5/20" in last
    assert "2.50" in last
    assert "0:01:15" in last
    assert "no [data] here" in last
    assert last.index("run-b") < last.index("run-b2") < last.index("run-c")
    assert "0 pending, 1 queued, 1 running, 1 done, 1 failed" in last


def test_without_a_terminal_each_change_is_logged(running: Path, monkeypatch) -> None:
    assert shown(monkeypatch, running, terminal=False).splitlines() == [
        "running: run-a",
        "failed: run-b: no [data] here",
        "queued: run-b2",
        "done: run-c in 0:01:01",
    ]


def test_runs_are_counted_by_state() -> None:
    assert count_by_state([]) == "0 pending, 0 running, 0 done, 0 failed"
    assert count_by_state(OUTCOMES[:1]) == "0 pending, 1 running, 0 done, 0 failed"
