"""How tables print numbers and strangers' text in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def line(cells: Sequence[str]) -> str:
    """One row of a table."""
    return "| " + " | ".join(cells) + " |"


def text(value: str) -> str:
    """Text from a record, safe inside a Markdown table."""
    for mark in ("\\", "|", "<", ">", "[", "]", "`", "*", "_"):
        value = value.replace(mark, "\\" + mark)
    return " ".join(value.split())


def percent(value: float, *, sign: bool = False) -> str:
    """A value of [0, 1] in percent with two decimals."""
    return f"{100 * value:+.2f}" if sign else f"{100 * value:.2f}"


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation in percent; of a single value itself."""
    mean = percent(statistics.fmean(values))
    return f"{mean} ± {percent(statistics.stdev(values))}" if len(values) > 1 else mean
