"""What the papers report: every figure with its paper, table and row, and how it was measured if known.

One YAML file per paper lies in ``reported/``: its tables, and in each its rows with their values as printed.
Nothing here is measured by this harness, and tables say so.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import Field

from avsbench_harness.schema import Schema

TaskName = Literal["s4", "ms3", "avss"]

#: The metric of the canonical protocols that a paper's own name for one stands for.
_CANONICAL = {
    "s4": {"J": "J", "mIoU": "J", "F": "F", "F-score": "F"},
    "avss": {"J": "mIoU", "mIoU": "mIoU", "F": "F", "F-score": "F"},
}
_CANONICAL["ms3"] = _CANONICAL["s4"]


class ReportedRow(Schema):
    """A row of a paper's table, or the part of it that belongs to one task.

    Attributes:
        row: its label, unique in the table together with method, backbone and task.
        method: a plugin's name, or the name of a method that the harness does not have.
        backbone: ``r50``, ``pvt``, another name as printed, or ``None`` where the paper does not say.
        setting: what else tells the row apart, as printed.
        task: ``None`` for figures that belong to no task, such as a number of parameters.
        values: metric as the paper names it -> value as printed.
        protocol: overrides the table's.
    """

    row: str = Field(min_length=1)
    method: str = Field(min_length=1)
    backbone: str | None = None
    setting: str | None = None
    task: TaskName | None = None
    values: dict[str, float] = Field(min_length=1)
    protocol: str | None = None


class ReportedTable(Schema):
    """A paper's table.

    Attributes:
        title: what it shows.
        main: whether it compares methods, rather than settings of one.
        protocol: how it was measured, as far as is known: a protocol's name, or words.
        unit: of the scores as printed.
        rows: all of them.
    """

    title: str
    main: bool = False
    protocol: str | None = None
    unit: Literal["percent", "fraction"] = "percent"
    rows: list[ReportedRow] = Field(min_length=1)


class Paper(Schema):
    """All tables of one paper with results."""

    paper: str
    title: str
    source: str
    tables: dict[str, ReportedTable] = Field(min_length=1)


@dataclass(frozen=True)
class Figure:
    """One printed number; attributes as in :class:`ReportedRow`, its table and its paper.

    Scores are in percent whatever the paper prints; other values stand as printed.
    """

    paper: str
    table: str
    row: str
    method: str
    backbone: str | None
    setting: str | None
    task: str | None
    metric: str
    value: float
    protocol: str | None
    main: bool

    @property
    def canonical_metric(self) -> str | None:
        """The canonical protocols' metric that this one is comparable with in kind, if there is one."""
        return _CANONICAL.get(self.task or "", {}).get(self.metric)


@functools.cache
def papers() -> tuple[Paper, ...]:
    """The papers, by name of their file."""
    folder = files("avsbench_harness.results") / "reported"
    found = sorted(
        (path for path in folder.iterdir() if path.name.endswith(".yaml")), key=lambda path: path.name
    )
    return tuple(Paper.parse(yaml.safe_load(path.read_text(encoding="utf-8")), path.name) for path in found)


@functools.cache
def figures() -> tuple[Figure, ...]:
    """Every reported number, in the order of papers, tables and rows."""
    return tuple(
        Figure(
            paper=paper.paper,
            table=name,
            row=row.row,
            method=row.method,
            backbone=row.backbone,
            setting=row.setting,
            task=row.task,
            metric=metric,
            value=value if table.unit == "percent" or row.task is None else round(100 * value, 4),
            protocol=row.protocol or table.protocol,
            main=table.main,
        )
        for paper in papers()
        for name, table in paper.tables.items()
        for row in table.rows
        for metric, value in row.values.items()
    )
