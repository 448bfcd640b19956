"""What many runs show while they are carried out: a live table on a terminal, a line per change elsewhere."""

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

#: Rows of the live table; more runs than that are counted only.
ROWS = 30

#: What is shown first where not all runs fit.
_URGENCY = ("running", "failed", "queued", "done", "pending")


@contextmanager
def display(out: Path) -> Iterator[Callable[[Outcome], None]]:
    """What to call when a run's state changes, while runs under ``out`` are carried out."""
    from avsbench_harness.console import console

    if not console.is_terminal:
        yield tell
        return
    from rich.live import Live

    known: dict[str, Outcome] = {}

    def table() -> Table:
        shown = sorted(known.copy().values(), key=lambda outcome: _URGENCY.index(outcome.state))[:ROWS]
        made = states_table(_with_progress(outcome, out) for outcome in shown)
        made.caption = count(known.copy().values())
        return made

    with Live(get_renderable=table, console=console, refresh_per_second=1):
        yield lambda outcome: known.update({outcome.name: outcome})


def states_table(outcomes: Iterable[Outcome]) -> Table:
    """One row per run: its state, and how far and how fast it is or why it failed."""
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(Column("run", overflow="fold"), "state", "step", "clips/s", "time left", "reason")
    for outcome in outcomes:
        beat = outcome.progress
        step = rate = left = ""
        if beat is not None and beat.total:
            step = f"{beat.step}/{beat.total}"
            rate = f"{beat.clips_per_second:.2f}" if beat.clips_per_second else ""
            left = duration(beat.seconds_left) if beat.seconds_left is not None else ""
        table.add_row(Text(outcome.name), outcome.state, step, rate, left, Text(outcome.reason))
    return table


def count(outcomes: Iterable[Outcome]) -> str:
    """How many runs there are of each state."""
    states: list[str] = [outcome.state for outcome in outcomes]
    return ", ".join(
        f"{states.count(state)} {state}" for state in STATES if state != "queued" or state in states
    )


def tell(outcome: Outcome) -> None:
    """One line when a run starts and when it ends."""
    took = f" in {duration(outcome.seconds)}" if outcome.seconds else ""
    reason = f": {outcome.reason}" if outcome.reason else ""
    logger.info(f"{outcome.state}: {outcome.name}{took}{reason}")


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"


def _with_progress(outcome: Outcome, out: Path) -> Outcome:
    """A running run with its last heartbeat."""
    from dataclasses import replace

    from avsbench_harness.engine.heartbeat import read_heartbeat

    if outcome.state != "running":
        return outcome
    return replace(outcome, progress=read_heartbeat(out / "runs" / outcome.name))
