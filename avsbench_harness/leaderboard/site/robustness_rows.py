"""Robustness of the runs in a table: the first metric under every audio condition, and the audio gains."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from avsbench_harness.errors import AvsbError
from avsbench_harness.leaderboard.cells import method_label
from avsbench_harness.leaderboard.formatting import percent
from avsbench_harness.leaderboard.tables import Row, Table
from avsbench_harness.results.folder import Results
from avsbench_harness.results.robustness import (
    ConditionEntry,
    RobustnessRecord,
    read_robustness,
    robustness_files,
)
from avsbench_harness.robustness.conditions import CLEAN


def robustness_rows(table: Table, results: Results) -> dict[str, Any] | None:
    """Conditions and rows of the robustness table below a leaderboard table.

    Only records that the results folder accepts are shown.

    Returns:
        ``conditions`` by name and ``rows``; ``None`` without robustness records of the table's runs.
    """
    if (table.split, table.part) != ("test", "all"):
        return None
    found = _accepted(results, table.solution)
    metric = table.columns[0][1]
    measured = [
        (row, [found[record.run_id] for record in row.records if record.run_id in found])
        for row in table.rows
    ]
    names = dict.fromkeys(
        entry.condition for _, records in measured for one in records for entry in one.conditions
    )
    if not names:
        return None
    conditions = [name for name in names if name == CLEAN] + [name for name in names if name != CLEAN]
    rows = [_row(row, records, conditions, metric) for row, records in measured if records]
    return {"conditions": conditions, "rows": rows, "metric": table.columns[0][2]}


def _accepted(results: Results, solution: str) -> dict[str, RobustnessRecord]:
    """The accepted robustness records on a ground truth, by run id."""
    refused = {path for path, _ in results.refused_robustness}
    found = {}
    for path in robustness_files(results.folder):
        if path in refused:
            continue
        try:
            record = read_robustness(path)
        except (AvsbError, OSError, ValueError):
            continue
        if record.data.solution == solution and record.data.split == "test":
            found[record.run_id] = record
    return found


def _row(
    row: Row, records: Sequence[RobustnessRecord], conditions: Sequence[str], metric: str
) -> dict[str, Any]:
    cells = []
    for name in conditions:
        entries = [entry for record in records if (entry := record.condition(name)) is not None]
        cells.append(_cell(entries, metric))
    return {
        "rank": row.rank,
        "label": f"{method_label(row.method, row.variant)} {row.backbone}",
        "seeds": f"{len(records)} of {len(row.records)} seeds",
        "cells": cells,
    }


def _cell(entries: Sequence[ConditionEntry], metric: str) -> dict[str, Any]:
    values = [value for entry in entries if (value := entry.score.metrics.get(metric)) is not None]
    if not values:
        return {"value": None, "text": "n/a (not measured)", "gain": "", "significant": False}
    value = statistics.fmean(values)
    gains = [gain for entry in entries if entry.gain and (gain := entry.gain.get(metric)) is not None]
    differences = [gain.value for gain in gains if gain.value is not None]
    text, significant = "", False
    if differences and len(differences) == len(entries):
        text = f"gain {percent(statistics.fmean(differences), sign=True)}"
        interval = gains[0].interval
        if len(entries) == 1 and interval is not None:
            text += f" ({percent(interval[0], sign=True)} to {percent(interval[1], sign=True)})"
            significant = interval[0] > 0 or interval[1] < 0
    return {
        "value": round(100 * value, 2),
        "text": percent(value),
        "gain": text,
        "significant": significant,
    }
