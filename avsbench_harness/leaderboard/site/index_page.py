"""The index page: one tab per data set and task, with measured rows and reported values in one table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from avsbench_harness.leaderboard.cells import (
    MINI_NOTE,
    SYNTHETIC_NOTE,
    failure_text,
    method_label,
    speed_note,
)
from avsbench_harness.leaderboard.formatting import mean_sd, percent, seed_label
from avsbench_harness.leaderboard.reported_rows import ReportedRow, reported_rows
from avsbench_harness.leaderboard.site.metrics import explain
from avsbench_harness.leaderboard.site.pages import file_name, page_name
from avsbench_harness.leaderboard.site.robustness_rows import robustness_rows
from avsbench_harness.leaderboard.tables import COLUMNS, Row, Table, unplaced_failures
from avsbench_harness.results.folder import Results
from avsbench_harness.results.paired_bootstrap import PairedDifference
from avsbench_harness.results.record import Record
from avsbench_harness.results.reported import reported_values
from avsbench_harness.scoring.api import canonical
from avsbench_harness.tasks import TASKS

#: Heading of the tabs whose tables have reported values.
AVSBENCH = "AVSBench"


def index_values(tables: Sequence[Table], results: Results, galleries: Mapping[str, str]) -> dict[str, Any]:
    """The values of the template ``index.html``.

    Args:
        tables: all tables of the results folder.
        results: its content.
        galleries: page of the gallery by ground truth.
    """
    tabs = [_measured_tab(table, results, galleries) for table in tables]
    for task in reversed(TASKS):
        if not any(tab["reported"] and tab["task"] == task for tab in tabs):
            tabs.insert(0, _reported_tab(task))
    order = list(TASKS)
    tabs.sort(key=lambda tab: (tab["kind"], tab["group"], order.index(tab["task"])))
    groups: dict[str, list[dict[str, Any]]] = {}
    for tab in tabs:
        groups.setdefault(tab["group"], []).append(tab)
    best = next((tab["id"] for tab in tabs if tab["measured"]), tabs[0]["id"])
    return {
        "tabs": tabs,
        "groups": groups,
        "first": best,
        "failures": [_failure(record) for record in unplaced_failures(results.records, tables)],
        "refused": results.refusals,
        "counts": {
            "runs": sum(record.status == "done" for record in results.records),
            "failed": sum(record.status == "failed" for record in results.records),
            "reported": sum(len(_reported(task)) for task in TASKS),
        },
    }


def _measured_tab(table: Table, results: Results, galleries: Mapping[str, str]) -> dict[str, Any]:
    has_reported = not table.synthetic and not table.mini and (table.split, table.part) == ("test", "all")
    metrics = [
        {"name": heading, "explanation": explain(metric), "key": metric}
        for _, metric, heading in table.columns
    ]
    measured = [_measured_row(row, table) for row in table.rows]
    keys = [metric for _, metric, _ in table.columns]
    reported = [_reported_row(row, keys) for row in _reported(table.task)] if has_reported else []
    part = "" if table.part == "all" else f", {table.part} clips"
    split = "" if table.split == "test" else f" {table.split}"
    name = table.data if not table.synthetic or table.data == "synthetic" else f"{table.data} (synthetic)"
    tab = {
        "id": f"t{file_name(table.task, table.data, table.split, table.part, table.solution)[:8]}",
        "kind": 2 if table.synthetic else 1 if table.mini else 0,
        "group": name,
        "label": f"{table.task.upper()}{split}{part}",
        "title": table.title,
        "task": table.task,
        "metrics": metrics,
        "has_gains": table.has_gains,
        "measured": measured,
        "reported": reported,
        "note": SYNTHETIC_NOTE if table.synthetic else MINI_NOTE if table.mini else "",
        "synthetic": table.synthetic,
        "protocol": table.protocol,
        "solution": table.solution[:12],
        "speed_note": speed_note(table).strip(),
        "gallery": galleries.get(table.solution, ""),
        "robustness": robustness_rows(table, results),
        "failed": [_failure(record) for record in table.failed],
    }
    return {**tab, **_filters(measured, reported)}


def _reported_tab(task: str) -> dict[str, Any]:
    """The tab of a task of AVSBench without measured rows."""
    columns = COLUMNS[canonical(task)][:2]
    reported = [_reported_row(row, [metric for metric, _ in columns]) for row in _reported(task)]
    tab = {
        "id": f"{task}-reported",
        "kind": 0,
        "group": AVSBENCH,
        "label": task.upper(),
        "title": f"{TASKS[task].title}: {AVSBENCH}, test",
        "task": task,
        "metrics": [
            {"name": heading, "explanation": explain(metric), "key": metric} for metric, heading in columns
        ],
        "has_gains": False,
        "measured": [],
        "reported": reported,
        "note": "",
        "synthetic": False,
        "protocol": canonical(task),
        "solution": "",
        "speed_note": "",
        "gallery": "",
        "robustness": None,
        "failed": [],
    }
    return {**tab, **_filters([], reported)}


def _filters(measured: Sequence[dict[str, Any]], reported: Sequence[dict[str, Any]]) -> dict[str, Any]:
    rows = [*measured, *reported]
    return {
        "backbones": sorted({name for row in rows for name in row["backbones"]}),
        "variants": sorted({row["variant"] for row in measured if row["variant"]}),
        "recipes": sorted({row["preset"] for row in measured}),
        "scale": _scale(measured),
    }


def _scale(measured: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """The range of the interval marks: all values and intervals of the first metric, in percent."""
    cells = [row["scores"][0] for row in measured if row["scores"] and row["scores"][0]["value"] is not None]
    ends = [end for cell in cells for end in (cell["value"], cell["low"], cell["high"]) if end is not None]
    low, high = min(ends, default=0.0), max(ends, default=100.0)
    margin = max(1.0, 0.08 * (high - low))
    return max(-100.0, low - margin), high + margin


def _measured_row(row: Row, table: Table) -> dict[str, Any]:
    record, measurement = row.newest, row.measurement
    cost = record.cost or (measurement.cost if measurement else None)
    speed = record.training.clips_per_second if record.training else None
    memory = record.training.memory_gib if record.training else None
    device = record.environment.device
    if measurement:
        speed, memory = measurement.training.clips_per_second.median, measurement.memory_gib
        device = f"{measurement.device.name}, {measurement.precision}, batch {measurement.batch.clips}"
    known = (
        []
        if table.synthetic
        else [
            {"text": source.text, "source": f"{source.paper}, {source.table}", "protocol": source.protocol}
            for one in _reported(table.task)
            if one.method == row.method
            for source in one.sources
            if source.backbone == row.backbone and source.paper.lower() == row.method.lower()
        ]
    )
    return {
        "rank": row.rank,
        "method": row.method,
        "label": method_label(row.method, row.variant),
        "variant": row.variant,
        "backbone": row.backbone or "n/a (not stated)",
        "backbones": [row.backbone or "n/a (not stated)"],
        "recipe": row.recipe,
        "preset": record.preset or "submitted",
        "scores": [_score(row, table, protocol, metric) for protocol, metric, _ in table.columns],
        "gain": _gain(row) if table.has_gains else None,
        "parameters": cost.parameters / 1e6 if cost else None,
        "gmacs": cost.gmacs if cost else None,
        "speed": speed,
        "memory": memory,
        "device": device,
        "date": record.created[:10],
        "runs": [_run(one, table) for one in row.records],
        "known": known,
    }


def _run(record: Record, table: Table) -> dict[str, Any]:
    entry = record.score(table.protocol, table.part)
    values = [] if entry is None else [(name, entry.metrics.get(name)) for name in entry.main]
    texts = [f"{name} {percent(value)}" for name, value in values if value is not None]
    return {
        "label": seed_label(record.seed),
        "id": record.run_id,
        "file": page_name(record),
        "scores": ", ".join(texts),
    }


def _score(row: Row, table: Table, protocol: str, metric: str) -> dict[str, Any]:
    """Mean over seeds in percent, with the interval of a single seed or the standard deviation of several."""
    values = row.values(protocol, metric, table.part)
    if not values:
        reason = "not defined on this split" if protocol == table.protocol else "not scored"
        return {"value": None, "text": "n/a", "spread": reason, "low": None, "high": None}
    value = statistics.fmean(values)
    low: float | None
    high: float | None
    if len(values) > 1:
        deviation = statistics.stdev(values)
        spread, low, high = f"± {percent(deviation)}", value - deviation, value + deviation
    else:
        entry = row.records[0].score(protocol, table.part)
        interval = entry.intervals.get(metric) if entry is not None else None
        low, high = interval or (None, None)
        spread = f"{percent(low)}-{percent(high)}" if low is not None and high is not None else ""
    scaled = [None if end is None else round(100 * end, 3) for end in (value, low, high)]
    return {
        "value": scaled[0],
        "text": percent(value),
        "spread": spread,
        "low": scaled[1],
        "high": scaled[2],
    }


def _gain(row: Row) -> dict[str, Any]:
    """Mean audio gain in percentage points."""
    if len(row.gains) < len(row.records):
        return {"value": None, "text": "n/a", "spread": "run avsb robustness"}
    values = [gain.value for gain in row.gains]
    text, _, deviation = mean_sd(values).partition(" ")
    spread = deviation or interval_text(row.gains[0])
    return {"value": round(100 * statistics.fmean(values), 3), "text": text, "spread": spread}


def interval_text(difference: PairedDifference) -> str:
    """The interval of a difference in percentage points, empty without one."""
    if difference.interval is None:
        return ""
    low, high = difference.interval
    return f"{percent(low, sign=True)} to {percent(high, sign=True)}"


def _reported(task: str) -> list[ReportedRow]:
    return reported_rows(task, reported_values())


def _reported_row(row: ReportedRow, metrics: Sequence[str]) -> dict[str, Any]:
    return {
        "label": f"{row.method} ({row.setting})" if row.setting else row.method,
        "method": row.method,
        "variant": "",
        "backbone": row.backbone,
        "backbones": list(row.backbones),
        "preset": "",
        "scores": [
            {
                "value": row.values.get(metric),
                "text": f"{row.values[metric]:.1f}" if metric in row.values else "",
                "differs": metric in row.differ,
            }
            for metric in metrics
        ],
        "sources": row.sources,
        "second_hand": row.second_hand,
    }


def _failure(record: Record) -> dict[str, str]:
    return {
        "id": record.run_id,
        "file": page_name(record),
        "label": method_label(record.method, record.variant),
        "backbone": record.backbone or "n/a",
        "text": failure_text(record),
        "date": record.created[:10],
    }
