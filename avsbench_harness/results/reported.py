"""Reported values: every number of the papers' result tables, with its paper, table, row and protocol.

Each YAML file in ``reported/`` contains the tables of one paper, with values as printed. The values are not
measured by this harness, and all tables mark them as reported.
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

#: Metric name in a paper -> comparable metric of the canonical protocol, by task.
_CANONICAL = {
    "s4": {"J": "J", "mIoU": "J", "F": "F", "F-score": "F"},
    "avss": {"J": "mIoU", "mIoU": "mIoU", "F": "F", "F-score": "F"},
}
_CANONICAL["ms3"] = _CANONICAL["s4"]


class ReportedRow(Schema):
    """A row of a paper's table, or the part of the row that belongs to one task.

    Attributes:
        row: label, unique in the table together with method, backbone and task.
        method: name of a plugin, or of a method that the harness does not implement.
        backbone: ``r50``, ``pvt`` or another name as printed; ``None`` if the paper does not state it.
        setting: further distinction from other rows, as printed.
        task: ``None`` for values that belong to no task, such as a number of parameters.
        values: metric as the paper names it -> value as printed.
        protocol: overrides the table's protocol.
    """

    row: str = Field(min_length=1)
    method: str = Field(min_length=1)
    backbone: str | None = None
    setting: str | None = None
    task: TaskName | None = None
    values: dict[str, float] = Field(min_length=1)
    protocol: str | None = None


class ReportedTable(Schema):
    """A table of a paper.

    Attributes:
        title: subject of the table.
        main: whether the table compares methods rather than settings of one method.
        protocol: name or short description of the protocol, ``None`` if unknown.
        unit: unit of the printed scores.
        rows: all rows.
    """

    title: str
    main: bool = False
    protocol: str | None = None
    unit: Literal["percent", "fraction"] = "percent"
    rows: list[ReportedRow] = Field(min_length=1)


class Paper(Schema):
    """All result tables of one paper."""

    paper: str
    title: str
    source: str
    tables: dict[str, ReportedTable] = Field(min_length=1)


@dataclass(frozen=True)
class ReportedValue:
    """One printed number; attributes as in :class:`Paper`, :class:`ReportedTable` and :class:`ReportedRow`.

    Scores are in percent, also if the paper prints fractions; other values are kept as printed.
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
        """The comparable metric of the task's canonical protocol, ``None`` if there is none."""
        return _CANONICAL.get(self.task or "", {}).get(self.metric)


@functools.cache
def papers() -> tuple[Paper, ...]:
    """The papers, sorted by file name."""
    folder = files("avsbench_harness.results") / "reported"
    found = sorted(
        (path for path in folder.iterdir() if path.name.endswith(".yaml")), key=lambda path: path.name
    )
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the fast one, if libyaml is available
    return tuple(
        Paper.parse(yaml.load(path.read_text(encoding="utf-8"), loader), path.name) for path in found
    )


@functools.cache
def reported_values() -> tuple[ReportedValue, ...]:
    """Every reported value, in the order of papers, tables and rows."""
    return tuple(
        ReportedValue(
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
