"""Ablation tables: one method, one thing changed per row, measured beside what its paper reports.

A method's ``ablations.yaml`` holds them by name. A table is a pure function of the records and the reported
figures: a record belongs to a row if its recipe is that of the full method with the row's changes and no
others.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from avsbench_harness.errors import UsageError, unknown
from avsbench_harness.files import sha256_json
from avsbench_harness.method import Method, get_method, methods
from avsbench_harness.recipe.resolve import assignments, merge, read_yaml, resolve
from avsbench_harness.recipe.schema import Recipe
from avsbench_harness.results.paired import ClipSums, Gap, gap, read_clip_sums
from avsbench_harness.results.record import Record
from avsbench_harness.results.reported import Figure, figures
from avsbench_harness.schema import Schema
from avsbench_harness.scoring.api import canonical
from avsbench_harness.tasks import TASKS, get_task

#: The metrics of an ablation table, by kind of task.
METRICS = {False: ("J", "F"), True: ("mIoU", "F")}


class Row(Schema):
    """One row: the full method with these recipe keys changed.

    Attributes:
        name: as the table prints it.
        set: dotted recipe keys and their values; empty for the full method alone.
        reported: the row's name among the reported figures, where it is another.
        tasks: on which the row stands so; ``None`` for all. The full method may be another row per task.
    """

    name: str = Field(min_length=1)
    set: dict[str, Any] = Field({})
    reported: str | None = None
    tasks: list[str] | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """``set`` as nested mappings."""
        nested: dict[str, Any] = {}
        for key, value in self.set.items():
            for part in reversed(key.split(".")):
                value = {part: value}
            nested = merge(nested, value)
        return nested


class Ablation(Schema):
    """One ablation table of a paper.

    Attributes:
        title: what is varied.
        table: of the paper, as the reported figures name it.
        paper: as the reported figures name it.
        variant: of the method.
        tasks, backbones: of the paper's table; the first ones are run where nothing else is asked for.
        set: recipe keys that all rows share, the full method included.
        rows: in the paper's order; on each task exactly one changes nothing: the full method.
        notes: what the paper leaves open about the table.
    """

    title: str
    paper: str
    table: str
    variant: str = "paper"
    tasks: list[str] = Field(min_length=1)
    backbones: list[str] = Field(min_length=1)
    set: dict[str, Any] = Field({})
    rows: list[Row] = Field(min_length=2)
    notes: list[str] = Field([])

    @model_validator(mode="after")
    def _one_full_row(self) -> Self:
        for task in self.tasks:
            rows = self.rows_of(task)
            full = [row.name for row in rows if not row.set]
            if len(full) != 1:
                raise ValueError(f"on {task} one row must change nothing (the full method), not {full}")
            if len({row.name for row in rows}) != len(rows):
                raise ValueError(f"two rows of {task} have the same name")
        return self

    def rows_of(self, task: str) -> list[Row]:
        """The rows of the table on a task, in the paper's order.

        Tasks that the paper's table leaves out have the rows of its first one.
        """
        place = task if task in self.tasks else self.tasks[0]
        return [row for row in self.rows if row.tasks is None or place in row.tasks]

    def full(self, task: str) -> Row:
        """The row that the others are compared with."""
        return next(row for row in self.rows_of(task) if not row.set)

    def keys(self, task: str) -> list[str]:
        """The recipe keys that the table or some row changes."""
        return sorted({*self.set, *(key for row in self.rows_of(task) for key in row.set)})


@dataclass(frozen=True)
class Measured:
    """What the records say of one row, and how far it is from the full method."""

    row: Row
    records: tuple[Record, ...]
    gaps: Mapping[str, Gap | None]


@dataclass(frozen=True)
class Section:
    """One table: the rows of an ablation on one task, backbone, recipe and data set."""

    task: str
    backbone: str
    preset: str
    data: str
    synthetic: bool
    solution: str
    rows: tuple[Measured, ...]


def ablations() -> dict[str, Ablation]:
    """Every ablation table of every method, as ``method/table``."""
    found: dict[str, Ablation] = {}
    for name, entry in methods().items():
        if entry.method is not None:
            tables = read_ablations(entry.method)
            found.update({f"{name}/{table}": ablation for table, ablation in tables.items()})
    return found


def get_ablation(name: str) -> tuple[Method, Ablation]:
    """The table of that name, ``method/table``, and its method; a folder stands for a method too."""
    owner, slash, table = name.rpartition("/")
    if not slash:
        raise unknown("ablation", name, ablations())
    method = get_method(owner)
    known = read_ablations(method)
    if table not in known:
        raise unknown(f"ablation of {method.name}", table, known)
    return method, known[table]


def read_ablations(method: Method) -> dict[str, Ablation]:
    """The tables in a method's ``ablations.yaml``; none if it has no such file."""
    path = method.folder / "ablations.yaml"
    return _read(path) if path.is_file() else {}


@functools.cache
def _read(path: Path) -> dict[str, Ablation]:
    tables = read_yaml(path)
    bad = next((name for name, table in tables.items() if not isinstance(table, dict)), None)
    if bad is not None:
        raise UsageError(f"'{bad}' in {path} must hold keys and values.")
    return {name: Ablation.parse(table, f"'{name}' in {path}") for name, table in tables.items()}


def sections(method: Method, ablation: Ablation, records: Iterable[Record], folder: Path) -> list[Section]:
    """The tables that the records make, real data first, then by task, backbone and recipe.

    Args:
        method: whose ablation it is.
        ablation: which.
        records: of ``results/``; those that are not of this ablation are left out.
        folder: where the records lie, for their per-clip tables.
    """
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        if record.method == method.name and record.variant == ablation.variant and record.spec:
            groups.setdefault(_group(record), []).append(record)
    found: list[Section] = []
    for members in groups.values():
        for base in _bases(method, ablation, members):
            rows = {
                row.name: _matching(members, merge(base, row.changes))
                for row in ablation.rows_of(members[0].task)
            }
            if sum(bool(matching) for matching in rows.values()) > 1:
                found.append(_section(ablation, members[0], rows, folder))
    order = list(TASKS)
    return sorted(
        _told_apart(found),
        key=lambda one: (
            one.synthetic,
            order.index(one.task),
            one.backbone,
            one.preset,
            one.data,
            one.solution,
        ),
    )


def _told_apart(found: Sequence[Section]) -> list[Section]:
    """The sections, with hashes of the full method's recipe and data where two would be called the same."""
    names = [(one.task, one.backbone, one.preset, one.data, one.solution) for one in found]
    made = []
    for name, one in zip(names, found, strict=True):
        full = next(row.records[0] for row in one.rows if not row.row.set)
        label = f"{one.preset} {full.recipe_hash}, data {(full.data.fingerprint or 'n/a')[:8]}"
        made.append(one if names.count(name) == 1 else replace(one, preset=label))
    return made


def _group(record: Record) -> tuple[Any, ...]:
    """What the rows of one table share."""
    assert record.spec is not None
    spec = record.spec
    return (
        record.task, record.backbone, record.preset, record.data.name, record.data.fingerprint,
        record.data.split, spec["code"], sha256_json(spec["audio"]), spec["backbone_weights"],
    )  # fmt: skip


def _bases(method: Method, ablation: Ablation, members: Sequence[Record]) -> list[dict[str, Any]]:
    """The recipes of the full method among the records' own, as far as they differ in other keys."""
    first = members[0]
    resolved = resolve(
        method,
        get_task(first.task),
        first.backbone or "",
        variant=ablation.variant,
        preset=first.preset or "full",
        assignments=assignments(ablation.set),
    ).to_dict()
    absent = object()
    found: dict[str, dict[str, Any]] = {}
    for record in members:
        recipe = _recipe(record)
        if all(_at(recipe, key, absent) == _at(resolved, key, absent) for key in ablation.keys(first.task)):
            found.setdefault(sha256_json(recipe), recipe)
    return list(found.values())


def _matching(members: Sequence[Record], recipe: dict[str, Any]) -> tuple[Record, ...]:
    wanted = Recipe.parse(recipe, "a record").to_dict()
    matching = [record for record in members if _recipe(record) == {**wanted, "source": ""}]
    return tuple(sorted(matching, key=lambda record: (record.seed or 0, record.run_id)))


def _recipe(record: Record) -> dict[str, Any]:
    assert record.spec is not None
    return {**record.spec["recipe"], "source": ""}


def _at(values: Mapping[str, Any], key: str, otherwise: object) -> object:
    """The value at a dotted key."""
    found: Any = values
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return otherwise
        found = found[part]
    return found


def _section(
    ablation: Ablation, first: Record, rows: Mapping[str, tuple[Record, ...]], folder: Path
) -> Section:
    protocol = canonical(first.task)

    def sums(records: Iterable[Record]) -> list[ClipSums]:
        scored = [record for record in records if record.score(protocol)]
        return [read_clip_sums(folder / f"{record.run_id}.json", protocol) for record in scored]

    full = sums(rows[ablation.full(first.task).name])
    metrics = METRICS[get_task(first.task).semantic]
    measured = []
    for row in ablation.rows_of(first.task):
        own = sums(rows[row.name]) if row.set else []
        measured.append(Measured(row, rows[row.name], {metric: gap(own, full, metric) for metric in metrics}))
    return Section(
        task=first.task,
        backbone=first.backbone or "",
        preset=first.preset or "",
        data=first.data.name,
        synthetic=first.data.synthetic,
        solution=next((r.data.solution for rs in rows.values() for r in rs if r.data.solution), None) or "",
        rows=tuple(measured),
    )


def values(measured: Measured, task: str, metric: str) -> list[float]:
    """The metric of every seed of a row, under the task's canonical protocol."""
    entries = [record.score(canonical(task)) for record in measured.records]
    found = [entry.metrics.get(metric) for entry in entries if entry is not None]
    return [value for value in found if value is not None]


def reported(ablation: Ablation, section: Section, row: Row, metric: str) -> Figure | None:
    """The paper's figure for a row; it may have been measured by another protocol, which the figure says."""
    wanted = (
        ablation.paper,
        ablation.table,
        row.reported or row.name,
        section.task,
        section.backbone,
        metric,
    )
    for figure in figures():
        own = (figure.paper, figure.table, figure.row, figure.task, figure.backbone, figure.canonical_metric)
        if own == wanted:
            return figure
    return None


def direction(ablation: Ablation, section: Section, measured: Measured, metric: str) -> str:
    """Whether the row lies on the side of the full method on which the paper has it."""
    found = measured.gaps.get(metric)
    ours = reported(ablation, section, measured.row, metric)
    full = reported(ablation, section, ablation.full(section.task), metric)
    if not measured.row.set or found is None or ours is None or full is None:
        return ""
    if not found.significant:
        return "not significant"
    if ours.value == full.value:
        return "none in the paper"
    return "agrees" if found.value * (ours.value - full.value) > 0 else "differs"
