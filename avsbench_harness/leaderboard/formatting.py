"""Formatting of numbers, and escaping of untrusted text in Markdown tables."""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from avsbench_harness.errors import one_line


def table_line(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def table_head(headings: Sequence[str]) -> list[str]:
    """The first two lines of a Markdown table."""
    return [table_line(headings), table_line(["---"] * len(headings))]


def escape(text: str) -> str:
    """Escape untrusted text for a cell of a Markdown table, as one line without bare links."""
    text = one_line(text)
    for mark in ("\\", "|", "<", ">", "[", "]", "`", "*", "_", "://", "@"):
        text = text.replace(mark, "\\" + mark)
    return text.replace("www.", "www\\.")


def record_link(label: str, run_id: str, folder: str = "") -> str:
    """A Markdown link to a record; an untrusted run id is percent-encoded.

    Args:
        label: text of the link.
        run_id: id of the run.
        folder: path from the page to the records, empty or ending in a slash.
    """
    return f"[{label}]({folder}{quote(run_id, safe='')}.json)"


def seed_label(seed: int | None) -> str:
    """Label of a record in a table: its seed, ``record`` for a submission without one."""
    return "record" if seed is None else f"s{seed}"


def percent(value: float, *, sign: bool = False) -> str:
    """A value in [0, 1] in percent with one decimal."""
    return f"{100 * value:+.1f}" if sign else f"{100 * value:.1f}"


def mean_sd(values: Sequence[float]) -> str:
    """Mean ± standard deviation in percent; of a single value, the value."""
    mean = percent(statistics.fmean(values))
    return f"{mean} ± {percent(statistics.stdev(values))}" if len(values) > 1 else mean


def statistics_of(values: Sequence[float]) -> dict[str, float | None]:
    """Number of seeds, mean and standard deviation, as columns of a data frame."""
    return {
        "seeds": len(values),
        "mean": statistics.fmean(values) if values else None,
        "sd": statistics.stdev(values) if len(values) > 1 else None,
    }


def _csv_cell(text: str) -> str:
    line = one_line(text, 10_000)
    return f"'{line}" if line.startswith(("=", "+", "-", "@")) else line


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV with six decimals; untrusted text becomes one printable line.

    Text that a spreadsheet would compute as a formula gets an apostrophe in front.
    """
    import pandas as pd

    buffer = io.StringIO()
    plain = [
        {key: _csv_cell(cell) if isinstance(cell, str) else cell for key, cell in row.items()} for row in rows
    ]
    pd.DataFrame(plain).to_csv(buffer, index=False, lineterminator="\n", float_format="%.6f")
    return buffer.getvalue()
