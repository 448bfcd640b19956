"""Progress on standard error: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from avsbench_harness import console
from avsbench_harness.console import counter, progress_bar

NOTE = "loss 1.2345  mask_iou 0.1234  mix 0.4000  dice 0.3000  2.31 clips/s  1.9 GiB"


def use_console(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, width: int = 80) -> io.StringIO:
    """Print to a file as to a terminal or a pipe."""
    file = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=file, force_terminal=terminal, width=width))
    return file


def test_step_total_and_time_left_are_readable_at_80_columns(monkeypatch) -> None:
    use_console(monkeypatch, terminal=True)
    progress = progress_bar()
    progress.get_time = iter(range(100)).__next__  # one second per call
    task = progress.add_task("backbone train", total=28800, completed=12000, note=NOTE)
    for _ in range(2):
        progress.advance(task, 60)
    shown = io.StringIO()
    Console(file=shown, width=80).print(progress.get_renderable())
    (line,) = shown.getvalue().splitlines()
    assert len(line) <= 80
    assert line.startswith("backbone train ")
    assert "12120/28800" in line
    assert "0:04:38" in line  # 16680 items, 60 per second
    assert "loss 1" in line


@pytest.mark.parametrize(("seconds", "lines"), [(0.0, 2), (3600.0, 0)])
def test_progress_is_printed_where_there_is_no_terminal(monkeypatch, seconds: float, lines: int) -> None:
    file = use_console(monkeypatch, terminal=False)
    monkeypatch.setattr(console, "LINE_SECONDS", seconds)
    with counter("audio of [train]", 3) as advance:
        for _ in range(3):
            advance(1)
    printed = file.getvalue().splitlines()
    assert len(printed) == lines  # none when the last item is done
    if lines:
        assert printed[0].startswith("audio of [train]: 1/3, ")
        assert printed[1].startswith("audio of [train]: 2/3, ")
        assert printed[1].endswith(" left")


def test_several_short_steps_are_not_silent(monkeypatch) -> None:
    """The time since the last line counts, also if it is that of a message or of an earlier step."""
    file = use_console(monkeypatch, terminal=False)
    now = [100.0]
    monkeypatch.setattr(console, "_printed", now[0])
    monkeypatch.setattr("avsbench_harness.console.time.monotonic", lambda: now[0])
    for name in ("one", "two", "three"):
        with counter(name, 2) as advance:
            now[0] += 12
            advance(1)
            now[0] += 1
            advance(1)
    assert [line.split(":")[0] for line in file.getvalue().splitlines()] == ["two"]


def test_a_bar_without_a_thread_is_drawn_when_it_advances(monkeypatch) -> None:
    file = use_console(monkeypatch, terminal=True)
    before = threading.active_count()
    with counter("forward", 3, refresh=False) as advance:
        assert threading.active_count() == before
        assert "1/3" not in file.getvalue()
        advance(1)
        assert "1/3" in file.getvalue()
