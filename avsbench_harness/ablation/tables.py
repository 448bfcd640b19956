"""Measured ablation tables: a pure function of the records and the reported values.

A record belongs to a row if its recipe is the recipe of the full method with exactly the row's changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from avsbench_harness.ablation.definition import Ablation, Row
from avsbench_harness.errors import UsageError
from avsbench_harness.files import sha256_json
from avsbench_harness.method import Method
from avsbench_harness.recipe.resolve import assignments, merge, resolve
from avsbench_harness.recipe.schema import Recipe
from avsbench_harness.results.paired_bootstrap import PairedDifference, paired_difference, read_seeds
from avsbench_harness.results.recipe_changes import recipe_label
from avsbench_harness.results.record import Record, recipe_value
from avsbench_harness.results.reported import ReportedValue, reported_values
from avsbench_harness.scoring.api import canonical
from avsbench_harness.tasks import TASKS, get_task

#: Metrics of an ablation table, by whether the task is semantic.
METRICS = {False: ("J", "F"), True: ("mIoU", "F")}


@dataclass(frozen=True)
class MeasuredRow:
    """The records of one row, and its difference to the full method by metric."""

    row: Row
    records: tuple[Record, ...]
    differences: Mapping[str, PairedDifference | None]


@dataclass(frozen=True)
class MeasuredTable:
    """The rows of an ablation on one task, backbone, preset and data set.

    Attributes:
        preset: name of the preset, with the changes that the full method has in these runs, and with hashes
            if several tables would have the same description.
        solution: fingerprint of the ground truth, empty if nothing was scored.
    """

    task: str
    backbone: str
    preset: str
    data: str
    synthetic: bool
    solution: str
    rows: tuple[MeasuredRow, ...]

    @property
    def description(self) -> tuple[Any, ...]:
        """Everything that is printed above the rows; also the order of tables."""
        order = list(TASKS).index(self.task)
        return self.synthetic, order, self.backbone, self.preset, self.data, self.solution


def measured_tables(
    method: Method, ablation: Ablation, records: Iterable[Record], folder: Path
) -> list[MeasuredTable]:
    """Build the tables of an ablation, real data first, then by task, backbone and preset.

    Args:
        method: the method.
        ablation: the definition of the table.
        records: records; those of other runs are ignored.
        folder: folder of the records and their per-clip files.
    """
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        if record.method == method.name and record.variant == ablation.variant and record.spec:
            groups.setdefault(_group_key(record), []).append(record)
    tables: list[MeasuredTable] = []
    for members in groups.values():
        recipes = list(map(_recipe, members))
        for full in _full_recipes(method, ablation, members[0], recipes):
            rows = {
                row.name: _records_of(members, recipes, merge(full, row.overrides))
                for row in ablation.rows_of(members[0].task)
            }
            if sum(bool(found) for found in rows.values()) > 1:
                tables.append(_measured_table(method, ablation, members[0], rows, folder))
    return sorted(_with_hashes(tables), key=lambda table: table.description)


def _with_hashes(tables: Sequence[MeasuredTable]) -> list[MeasuredTable]:
    """Add hashes of recipe and data to the presets of tables that have the same description."""
    descriptions = [table.description for table in tables]
    made = []
    for table in tables:
        full = next(row.records[0] for row in table.rows if not row.row.set)
        label = f"{table.preset} {full.recipe_hash}, data {(full.data.fingerprint or 'n/a')[:8]}"
        unique = descriptions.count(table.description) == 1
        made.append(table if unique else replace(table, preset=label))
    return made


def _group_key(record: Record) -> tuple[Any, ...]:
    """The properties that all rows of one table share."""
    assert record.spec is not None
    spec = record.spec
    return (
        record.task, record.backbone, record.preset, record.data.name, record.data.fingerprint,
        record.data.split, spec["code"], sha256_json([spec["audio"], spec["backbone_weights"]]),
    )  # fmt: skip


def _full_recipes(
    method: Method, ablation: Ablation, first: Record, recipes: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The distinct recipes of the full method among those of a group of records.

    They have the method's values of all keys that the ablation changes; other keys may differ. There are none
    if the method has no such preset.
    """
    try:
        resolved = resolve(
            method,
            get_task(first.task),
            first.backbone or "",
            variant=ablation.variant,
            preset=first.preset or "full",
            assignments=assignments(ablation.set),
        ).to_dict()
    except UsageError:
        return []
    keys = ablation.keys(first.task)
    absent = object()
    found: dict[str, dict[str, Any]] = {}
    for recipe in recipes:
        if all(recipe_value(recipe, key, absent) == recipe_value(resolved, key, absent) for key in keys):
            found.setdefault(sha256_json(recipe), recipe)
    return list(found.values())


def _records_of(
    members: Sequence[Record], recipes: Sequence[dict[str, Any]], wanted: dict[str, Any]
) -> tuple[Record, ...]:
    """The records with a recipe, by seed; none if the recipe is not valid."""
    try:
        complete = Recipe.parse(wanted, "a row").to_dict()
    except UsageError:
        return ()
    found = [record for record, recipe in zip(members, recipes, strict=True) if recipe == complete]
    return tuple(sorted(found, key=lambda record: (record.seed or 0, record.run_id)))


def _recipe(record: Record) -> dict[str, Any]:
    """The recipe of a record with the defaults of newer keys, without the origin of its values."""
    assert record.spec is not None
    return {**Recipe.parse(record.spec["recipe"], record.run_id).to_dict(), "source": ""}


def _measured_table(
    method: Method,
    ablation: Ablation,
    first: Record,
    records: Mapping[str, tuple[Record, ...]],
    folder: Path,
) -> MeasuredTable:
    protocol = canonical(first.task)
    sums = {
        name: read_seeds((record for record in members if record.score(protocol)), folder, protocol)
        for name, members in records.items()
    }
    full = ablation.full(first.task)
    metrics = METRICS[get_task(first.task).semantic]
    rows = []
    for row in ablation.rows_of(first.task):
        own = sums[row.name] if row is not full else []
        differences = {metric: paired_difference(own, sums[full.name], metric) for metric in metrics}
        rows.append(MeasuredRow(row, records[row.name], differences))
    solutions = (record.data.solution for members in records.values() for record in members)
    return MeasuredTable(
        task=first.task,
        backbone=first.backbone or "",
        preset=recipe_label(next(iter(records[full.name]), first), method),
        data=first.data.name,
        synthetic=first.data.synthetic,
        solution=next(filter(None, solutions), ""),
        rows=tuple(rows),
    )


def measured_values(measured: MeasuredRow, task: str, metric: str) -> list[float]:
    """The metric of every seed of a row, under the task's canonical protocol."""
    entries = [record.score(canonical(task)) for record in measured.records]
    values = [entry.metrics.get(metric) for entry in entries if entry is not None]
    return [value for value in values if value is not None]


def reported_value(ablation: Ablation, table: MeasuredTable, row: Row, metric: str) -> ReportedValue | None:
    """The paper's value of a row, ``None`` if the paper has none; its protocol may be another."""
    wanted = (
        ablation.paper,
        ablation.table,
        row.reported or row.name,
        table.task,
        table.backbone,
        metric,
    )
    for value in reported_values():
        own = (value.paper, value.table, value.row, value.task, value.backbone, value.canonical_metric)
        if own == wanted:
            return value
    return None


def direction(ablation: Ablation, table: MeasuredTable, measured: MeasuredRow, metric: str) -> str:
    """Whether the measured difference to the full method has the sign of the reported one.

    Returns:
        ``agrees``, ``differs``, ``not significant`` (measured), ``none in the paper`` (equal reported
        values), or an empty string if there is nothing to compare.
    """
    difference = measured.differences.get(metric)
    row = reported_value(ablation, table, measured.row, metric)
    full = reported_value(ablation, table, ablation.full(table.task), metric)
    if not measured.row.set or difference is None or row is None or full is None:
        return ""
    if not difference.significant:
        return "not significant"
    if row.value == full.value:
        return "none in the paper"
    return "agrees" if difference.value * (row.value - full.value) > 0 else "differs"
