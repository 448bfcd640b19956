"""The measured ablation tables of all installed methods, for the HTML site."""

from __future__ import annotations

import statistics

from avsbench_harness.ablation.definition import Ablation, read_ablations
from avsbench_harness.ablation.tables import (
    METRICS,
    MeasuredRow,
    MeasuredTable,
    direction,
    measured_tables,
    measured_values,
    reported_value,
)
from avsbench_harness.errors import PLUGIN_ERRORS
from avsbench_harness.leaderboard.cells import failure_text
from avsbench_harness.leaderboard.formatting import mean_sd
from avsbench_harness.leaderboard.site.ablation_page import AblationRow, AblationTable
from avsbench_harness.method import methods
from avsbench_harness.results.folder import Results
from avsbench_harness.tasks import TASKS, get_task


def site_tables(results: Results) -> list[AblationTable]:
    """Every ablation table with at least two measured rows, by method and table."""
    found = []
    for entry in methods().values():
        if entry.method is None:
            continue
        try:
            ablations = read_ablations(entry.method)
        except PLUGIN_ERRORS:
            continue  # a plugin's broken file does not prevent the page
        for name, ablation in ablations.items():
            for table in measured_tables(entry.method, ablation, results.records, results.folder):
                found.append(_site_table(f"{entry.name}/{name}", ablation, table))
    return found


def _site_table(name: str, ablation: Ablation, table: MeasuredTable) -> AblationTable:
    metric = METRICS[get_task(table.task).semantic][0]
    return AblationTable(
        name=name,
        title=ablation.title,
        source=f"{ablation.paper}, {ablation.table}",
        description=f"{TASKS[table.task].title}, {table.backbone}: {table.data}; recipe {table.preset}",
        metric=metric,
        synthetic=table.synthetic,
        rows=tuple(_row(ablation, table, row, metric) for row in table.rows),
    )


def _row(ablation: Ablation, table: MeasuredTable, row: MeasuredRow, metric: str) -> AblationRow:
    values = measured_values(row, table.task, metric)
    failed = [record for record in row.records if record.status == "failed"]
    missing = failure_text(failed[0]) if failed else "n/a (not run)"
    reported = reported_value(ablation, table, row.row, metric)
    return AblationRow(
        name=row.row.name,
        full=not row.row.set,
        text=mean_sd(values) if values else missing,
        value=statistics.fmean(values) if values else None,
        difference=row.differences.get(metric),
        reported=reported.value if reported else None,
        direction=direction(ablation, table, row, metric),
        records=row.records,
    )
