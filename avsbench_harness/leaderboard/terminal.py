"""The leaderboard for the terminal: tables of 80 columns, with the ids of the runs in full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from avsbench_harness.errors import one_line
from avsbench_harness.leaderboard.cells import failure_text, method_label
from avsbench_harness.leaderboard.formatting import mean_sd, percent
from avsbench_harness.leaderboard.reported_rows import reported_rows
from avsbench_harness.leaderboard.tables import COLUMNS, Row, Table
from avsbench_harness.results.record import Record
from avsbench_harness.results.reported import reported_values
from avsbench_harness.scoring.api import canonical
from avsbench_harness.tasks import TASKS

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table as RichTable


def terminal_tables(
    tables: Sequence[Table],
    failed: Sequence[Record] = (),
    *,
    reported: bool = False,
    backbone: str | None = None,
) -> list[RenderableType]:
    """The tables as rich renderables: measured rows, their runs, failed runs and reported values.

    Args:
        tables: measured tables.
        failed: failed runs that are in no table.
        reported: whether to add the reported values.
        backbone: show only reported values with this backbone.
    """
    shown: list[RenderableType] = []
    for table in tables:
        shown += [_scores(table), _runs(table)]
        shown += [_failure(record) for record in table.failed] + [""]
    if not tables:
        shown += ["There are no scored runs yet; create one with `avsb run`.", ""]
    if failed:
        shown += ["Failed runs without a table", *map(_failure, failed), ""]
    if tables:
        shown.append(
            "In percent. Several seeds: mean ± standard deviation; one seed: half the width of its 95 % "
            "interval in brackets. Rows of one rank do not differ significantly from its first row."
        )
    if reported:
        shown += [_reported(task, backbone) for task in TASKS]
        shown.append(
            "Printed in papers under their own protocols; not measured, not ranked. * sources differ."
        )
    return shown


def _scores(table: Table) -> RichTable:
    columns = [column for column in table.columns if column[1] != "mIoU_no_background"]
    made = _table(one_line(f"{table.title} ({table.protocol})", 78))
    made.add_column("rank", justify="right")
    for name in ("method", "backbone", "recipe"):
        made.add_column(name, overflow="fold")
    for _, _, heading in columns:
        made.add_column(heading, justify="right", no_wrap=True)
    made.add_column("M par.", justify="right", no_wrap=True)
    for row in table.rows:
        cost = row.newest.cost or (row.measurement.cost if row.measurement else None)
        made.add_row(
            str(row.rank),
            one_line(method_label(row.method, row.variant), 40),
            one_line(row.backbone or "n/a", 20),
            one_line(row.recipe, 60),
            *(_score(row, table, protocol, metric) for protocol, metric, _ in columns),
            f"{cost.parameters / 1e6:.1f}" if cost else "n/a",
        )
    return made


def _score(row: Row, table: Table, protocol: str, metric: str) -> str:
    values = row.values(protocol, metric, table.part)
    if not values:
        return "n/a"
    entry = row.records[0].score(protocol, table.part)
    interval = entry.intervals.get(metric) if entry else None
    if len(values) == 1 and interval:
        return f"{percent(values[0])} ({percent((interval[1] - interval[0]) / 2)})"
    return mean_sd(values)


def _runs(table: Table) -> RichTable:
    """The ids of the runs, never wrapped, with their first metric."""
    made = _table(None)
    protocol, metric, heading = table.columns[0]
    made.add_column("rank", justify="right")
    made.add_column("run", no_wrap=True, overflow="ignore")
    made.add_column(heading, justify="right", no_wrap=True)
    for row in table.rows:
        for record in row.records:
            entry = record.score(protocol, table.part)
            value = entry.metrics.get(metric) if entry else None
            made.add_row(str(row.rank), record.run_id, "n/a" if value is None else percent(value))
    return made


def _failure(record: Record) -> str:
    return f"{record.run_id}\n  {one_line(failure_text(record))}"


def _reported(task: str, backbone: str | None) -> RichTable:
    metrics = COLUMNS[canonical(task)][:2]
    made = _table(f"{TASKS[task].title}: reported values")
    for name in ("method", "backbone"):
        made.add_column(name, overflow="fold")
    for _, heading in metrics:
        made.add_column(heading, justify="right", no_wrap=True)
    made.add_column("sources", overflow="fold")
    values = [value for value in reported_values() if backbone in (None, value.backbone)]
    rows = reported_rows(task, values)
    rows.sort(key=lambda row: -row.values.get(metrics[0][0], 0))
    for row in rows:
        cells = []
        for name, _ in metrics:
            value = row.values.get(name)
            cells.append("" if value is None else f"{value:.1f}{'*' if name in row.differ else ''}")
        method = f"{row.method} ({row.setting})" if row.setting else row.method
        papers = ", ".join(dict.fromkeys(source.paper for source in row.sources))
        note = " (second hand)" if row.second_hand else ""
        made.add_row(method, ", ".join(row.backbones), *cells, papers + note)
    return made


def _table(title: str | None) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable

    return RichTable(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
