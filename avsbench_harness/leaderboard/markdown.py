"""How tables print numbers and strangers' text in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from urllib.parse import quote


def line(cells: Sequence[str]) -> str:
    """One row of a table."""
    return "| " + " | ".join(cells) + " |"


def text(value: str) -> str:
    """Text from a record, safe inside a Markdown table."""
    for mark in ("\\", "|", "<", ">", "[", "]", "`", "*", "_"):
        value = value.replace(mark, "\\" + mark)
    return " ".join(value.split())


def link(seed: int | None, run_id: str, folder: str = "") -> str:
    """A link to a run's record, named by its seed; a stranger's id cannot end it.

    Args:
        seed: of the run, ``None`` for a submission made elsewhere.
        run_id: of the record.
        folder: from the page to the records, ending in a slash.
    """
    return f"[{'record' if seed is None else f's{seed}'}]({folder}{quote(run_id)}.json)"


def percent(value: float, *, sign: bool = False) -> str:
    """A value of [0, 1] in percent with two decimals."""
    return f"{100 * value:+.2f}" if sign else f"{100 * value:.2f}"


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation in percent; of a single value itself."""
    mean = percent(statistics.fmean(values))
    return f"{mean} ± {percent(statistics.stdev(values))}" if len(values) > 1 else mean
