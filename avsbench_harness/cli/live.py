"""Progress of many runs: a live table on a terminal, otherwise one log line per change of state."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.table import Table

    from avsbench_harness.launch.status import Outcome

logger = logging.getLogger(__name__)


STATES = ("pending", "queued", "running", "done", "failed")

#: Maximum number of rows of the live table; further runs are only counted.
MAX_ROWS = 30

#: Order of states in the live table; the last ones are cut if there are too many runs.
_PRIORITY = ("running", "failed", "queued", "done", "pending")


@contextmanager
def show_progress(out: Path) -> Iterator[Callable[[Outcome], None]]:
    """Show the progress of runs under ``out``; yields the function that reports a change of state."""
    from avsbench_harness.console import console

    if not console.is_terminal:
        yield log_outcome
        return
    from rich.live import Live

    known: dict[str, Outcome] = {}

    def render() -> Table:
        rows = sorted(known.copy().values(), key=lambda outcome: _PRIORITY.index(outcome.state))[:MAX_ROWS]
        table = states_table(_with_progress(outcome, out) for outcome in rows)
        table.caption = count_by_state(known.copy().values())
        return table

    with Live(get_renderable=render, console=console, refresh_per_second=1):
        yield lambda outcome: known.update({outcome.name: outcome})


def states_table(outcomes: Iterable[Outcome]) -> Table:
    """Return a table with one row per run: state, progress and speed, or the reason of a failure."""
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(Column("run", overflow="fold"), "state", "step", "clips/s", "time left", "reason")
    for outcome in outcomes:
        heartbeat = outcome.progress
        step = rate = left = ""
        if heartbeat is not None and heartbeat.total:
            step = f"{heartbeat.step}/{heartbeat.total}"
            rate = f"{heartbeat.clips_per_second:.2f}" if heartbeat.clips_per_second else ""
            left = duration(heartbeat.seconds_left) if heartbeat.seconds_left is not None else ""
        table.add_row(Text(outcome.name), outcome.state, step, rate, left, Text(outcome.reason))
    return table


def count_by_state(outcomes: Iterable[Outcome]) -> str:
    """Return the number of runs in each state as text."""
    states: list[str] = [outcome.state for outcome in outcomes]
    return ", ".join(
        f"{states.count(state)} {state}" for state in STATES if state != "queued" or state in states
    )


def log_outcome(outcome: Outcome) -> None:
    """Log one line when a run starts or ends."""
    took = f" in {duration(outcome.seconds)}" if outcome.seconds else ""
    reason = f": {outcome.reason}" if outcome.reason else ""
    logger.info(f"{outcome.state}: {outcome.name}{took}{reason}")


def duration(seconds: float) -> str:
    """Format seconds as ``h:mm:ss``."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"


def _with_progress(outcome: Outcome, out: Path) -> Outcome:
    """Add the last heartbeat to the outcome of a running run."""
    from dataclasses import replace

    from avsbench_harness.engine.heartbeat import read_heartbeat

    if outcome.state != "running":
        return outcome
    return replace(outcome, progress=read_heartbeat(out / "runs" / outcome.name))
