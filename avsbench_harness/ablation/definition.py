"""Definitions of ablation tables, read from ``ablations.yaml`` of a method."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from avsbench_harness.errors import UsageError, unknown
from avsbench_harness.method import Method, get_method, methods
from avsbench_harness.recipe.resolve import merge
from avsbench_harness.recipe.yaml_reader import read_yaml
from avsbench_harness.schema import Schema

logger = logging.getLogger(__name__)


class Row(Schema):
    """One row: the full method with some recipe keys changed.

    Attributes:
        name: name of the row in the table.
        set: dotted recipe keys and their values; empty for the full method.
        reported: name of the row in the reported values, if different.
        tasks: tasks whose table has this row; ``None`` for all. The full method can be a different row on
            each task.
    """

    name: str = Field(min_length=1)
    set: dict[str, Any] = Field({})
    reported: str | None = None
    tasks: list[str] | None = None

    @property
    def overrides(self) -> dict[str, Any]:
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
        title: the ablated component or setting.
        paper: name of the paper in the reported values.
        table: name of the table in the reported values.
        variant: variant of the method.
        tasks: tasks of the paper's table; the first is the default.
        backbones: backbones of the paper's table; the first is the default.
        set: recipe keys that are changed in all rows, including the full method.
        rows: rows in the paper's order; on each task exactly one changes nothing: the full method.
        notes: details of the table that the paper does not state.
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
    def _check_rows(self) -> Self:
        for task in self.tasks:
            rows = self.rows_of(task)
            full = [row.name for row in rows if not row.set]
            if len(full) != 1:
                raise ValueError(f"on {task} one row must change nothing (the full method), not {full}")
            if len({row.name for row in rows}) != len(rows):
                raise ValueError(f"two rows of {task} have the same name")
        return self

    def rows_of(self, task: str) -> list[Row]:
        """The rows on a task, in the paper's order.

        A task that is not in the paper's table has the rows of the table's first task.
        """
        own = task if task in self.tasks else self.tasks[0]
        return [row for row in self.rows if row.tasks is None or own in row.tasks]

    def full(self, task: str) -> Row:
        """The row of the full method on a task."""
        return next(row for row in self.rows_of(task) if not row.set)

    def keys(self, task: str) -> list[str]:
        """The recipe keys that the table or any of its rows changes."""
        return sorted({*self.set, *(key for row in self.rows_of(task) for key in row.set)})


def ablations() -> dict[str, Ablation]:
    """The ablation tables of all methods by name, ``method/table``."""
    found: dict[str, Ablation] = {}
    for name, entry in methods().items():
        if entry.method is None:
            continue
        try:
            tables = read_ablations(entry.method)
        except UsageError as error:  # of one plugin, which must not hide the others
            logger.warning(f"The ablations of {name} are left out: {error}")
            continue
        found.update({f"{name}/{table}": ablation for table, ablation in tables.items()})
    return found


def get_ablation(name: str) -> tuple[Method, Ablation]:
    """Return a method and its ablation table by name.

    Args:
        name: ``method/table``; the method may be given as a folder.

    Raises:
        UsageError: unknown method or table.
    """
    owner, slash, table = name.rpartition("/")
    if not slash:
        raise unknown("ablation", name, ablations())
    method = get_method(owner)
    known = read_ablations(method)
    if table not in known:
        raise unknown(f"ablation of {method.name}", table, known)
    return method, known[table]


def read_ablations(method: Method) -> dict[str, Ablation]:
    """The tables in a method's ``ablations.yaml``; empty if the method has no such file."""
    path = method.folder / "ablations.yaml"
    return _read(path) if path.is_file() else {}


@functools.cache
def _read(path: Path) -> dict[str, Ablation]:
    tables = read_yaml(path)
    bad = next((name for name, table in tables.items() if not isinstance(table, dict)), None)
    if bad is not None:
        raise UsageError(f"'{bad}' in {path} must be a mapping.")
    return {name: Ablation.parse(table, f"'{name}' in {path}") for name, table in tables.items()}
