"""Ablation tables as the site shows them; :mod:`avsbench_harness.ablation.site_tables` makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from avsbench_harness.leaderboard.formatting import percent
from avsbench_harness.leaderboard.site.pages import page_name
from avsbench_harness.results.paired_bootstrap import PairedDifference
from avsbench_harness.results.record import Record


@dataclass(frozen=True)
class AblationRow:
    """A row of an ablation table.

    Attributes:
        full: whether it is the full method.
        text: mean ± standard deviation of the metric in percent, or why there is none.
        value: mean of the metric in [0, 1], ``None`` if it was not measured.
        difference: to the full method.
        reported: the paper's value in percent.
        direction: whether the sign of the difference agrees with the paper.
    """

    name: str
    full: bool
    text: str
    value: float | None
    difference: PairedDifference | None
    reported: float | None
    direction: str
    records: tuple[Record, ...]


@dataclass(frozen=True)
class AblationTable:
    """An ablation on one task, backbone and data set, with its first metric."""

    name: str
    title: str
    source: str
    description: str
    metric: str
    synthetic: bool
    rows: tuple[AblationRow, ...]


def ablation_values(tables: Sequence[AblationTable]) -> dict[str, Any]:
    """The values of the template ``ablations.html``."""
    return {"tables": [_table(table) for table in tables]}


def _table(table: AblationTable) -> dict[str, Any]:
    ends = [0.0]
    for row in table.rows:
        if row.difference is not None:
            ends += [row.difference.value, *(row.difference.interval or ())]
    reach = max(0.01, *map(abs, ends)) * 1.05

    def at(value: float) -> float:
        """Position of a difference, in percent of the width of the bars."""
        return round(50 + 50 * max(-1.0, min(1.0, value / reach)), 2)

    return {
        "table": table,
        "reach": percent(reach),
        "rows": [{"row": row, "bar": _bar(row.difference, at), "runs": _runs(row)} for row in table.rows],
    }


def _bar(difference: PairedDifference | None, at: Any) -> dict[str, Any] | None:
    if difference is None:
        return None
    zero, end = at(0.0), at(difference.value)
    interval = difference.interval
    return {
        "x": min(zero, end),
        "width": round(abs(end - zero), 2),
        "low": None if interval is None else at(interval[0]),
        "high": None if interval is None else at(interval[1]),
        "text": percent(difference.value, sign=True),
        "interval": ""
        if interval is None
        else f"{percent(interval[0], sign=True)} to {percent(interval[1], sign=True)}",
        "significant": difference.significant,
        "worse": difference.value < 0,
    }


def _runs(row: AblationRow) -> list[dict[str, str]]:
    return [
        {"file": page_name(record), "label": "record" if record.seed is None else f"s{record.seed}"}
        for record in row.records
    ]
