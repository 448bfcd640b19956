"""The last screen of ``avsb demo``."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from avsbench_harness.launch.demo import DemoResult, DemoRun
from avsbench_harness.results.record import ScoreEntry
from avsbench_harness.results.robustness import ConditionEntry, EstimateEntry, RobustnessRecord

from ..results.records import make_record


def score(j: float) -> ScoreEntry:
    return ScoreEntry(
        protocol="object/1", main=["J", "F"], metrics={"J": j, "F": 0.9}, intervals={}, clips=160
    )


def demo_run(method: str, clean: float, swapped: float, interval: tuple[float, float] | None) -> DemoRun:
    record = make_record(
        f"ms3-{method}", clean, method=method, task="ms3", preset="mini", backbone="lite0",
        data={"name": "AVS-Mini v1"}, spec={"recipe": {"epochs": 3}},
    )  # fmt: skip
    gain = EstimateEntry(value=clean - swapped, interval=interval)
    conditions = [
        ConditionEntry(condition="clean", submission_sha256="0" * 64, score=score(clean)),
        ConditionEntry(
            condition="swapped", submission_sha256="1" * 64, score=score(swapped), gain={"J": gain},
            sensitivity=0.5,
        ),
    ]  # fmt: skip
    return DemoRun(
        record,
        RobustnessRecord(
            run_id=record.run_id, spec_hash="a" * 64, task="ms3", data=record.data, left_out=[],
            conditions=conditions,
        ),
    )  # fmt: skip


def test_the_result_is_one_screen(avsb, tmp_path: Path, monkeypatch) -> None:
    """24 lines of 80 columns: the scores, the pages and three commands that exist."""
    baselines: dict[str, Any] = {
        name: SimpleNamespace(metrics={"J": value})
        for name, value in (("nothing", 0.25), ("everything", None))
    }
    runs = [
        demo_run("avsegformer", 0.5125, 0.4, (0.0876, 0.1374)),
        demo_run("qdformer", 0.25, 0.375, None),
    ]
    result = DemoResult(
        runs, baselines, Path("demo/results/LEADERBOARD.md"), Path("demo/site/index.html"), 272.4
    )
    monkeypatch.setattr("avsbench_harness.launch.demo.run_demo", lambda recipes, out, device: result)
    monkeypatch.setenv("COLUMNS", "80")
    shown = avsb("demo")
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    cells = [line.split() for line in lines]
    assert "AVS-Mini v1, ms3 test, 160 clips, object/1 (0:04:32 on cpu)" in lines
    assert ["avsegformer,", "3", "epochs", "0.5125", "0.4000", "+0.1125", "+0.0876", "to", "+0.1374"] in cells
    assert ["qdformer,", "3", "epochs", "0.2500", "0.3750", "-0.1250", "n/a"] in cells
    assert ["nothing", "0.2500"] in cells
    assert ["everything", "n/a"] in cells
    assert "page:        demo/site/index.html" in lines
    commands = [line.split()[1:] for line in lines if line.startswith("  avsb ")]
    assert len(commands) == 3
    for words in commands:
        names = [word for word in words if word.islower() and not word.startswith("-")][:2]
        assert avsb(*names[: 2 if names[0] == "data" else 1], "--help").code == 0
