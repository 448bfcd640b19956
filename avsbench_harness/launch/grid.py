"""Grid files: combinations of methods or ablation tables, backbones, tasks, seeds and recipe changes."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from avsbench_harness.errors import UsageError, one_line
from avsbench_harness.recipe.schema import Seed
from avsbench_harness.recipe.yaml_reader import read_yaml
from avsbench_harness.schema import PlainValues, Schema

_SEED = re.compile(r"[0-9]{1,20}")
_RANGE = re.compile(r"([0-9]{1,20})\.\.([0-9]{1,20})")

#: Maximum number of runs of a grid.
MAX_RUNS = 10_000


class Change(Schema):
    """One row of a grid: its name and its recipe overrides."""

    name: str = Field(min_length=1)
    set: PlainValues = Field({}, description="dotted recipe keys and their values")


class Grid(Schema):
    """A grid file: every combination of these lists is a run; a single value is a list of one.

    ``seeds`` is a list, or a range such as ``0..2`` with both ends included. Relative paths are relative to
    the working directory. With ``ablations`` the methods, variants and rows are those of ablation tables.
    """

    method: list[str] = Field([])
    ablations: list[str] = Field([], description="ablation tables (method/table), instead of methods")
    backbone: list[str] = Field(["r50"], min_length=1)
    task: list[str] = Field(["s4"], min_length=1)
    variant: list[str | None] = Field([None], min_length=1)
    seeds: list[Seed] = Field([0], min_length=1)
    data: Path | None = None
    preset: str | None = None
    recipe: Path | None = None
    pretrained: bool | None = None
    set: PlainValues = Field({}, description="overrides of every recipe")
    rows: list[Change] = Field([Change(name="all")], min_length=1)

    @model_validator(mode="after")
    def _of_methods_or_ablations(self) -> Grid:
        if bool(self.method) == bool(self.ablations):
            raise ValueError("a grid has either the key method or the key ablations")
        fixed = sorted({"variant", "rows"} & self.model_fields_set)
        if self.ablations and fixed:
            raise ValueError(f"the ablation tables determine {fixed[0]}; remove the key {fixed[0]}")
        return self

    @model_validator(mode="after")
    def _bounded(self) -> Grid:
        methods = self.method or self.ablations
        lists = (self.rows, self.task, methods, self.backbone, self.variant, self.seeds)
        count = math.prod(len(values) for values in lists)
        if count > MAX_RUNS:
            raise ValueError(f"the grid has {count} runs, and at most {MAX_RUNS} are possible")
        return self

    @field_validator("method", "ablations", "backbone", "task", "variant", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if value is None or isinstance(value, str) else value

    @field_validator("seeds", mode="before")
    @classmethod
    def _range_is_a_list(cls, value: Any) -> Any:
        return parse_seeds(value) if isinstance(value, str) else [value] if isinstance(value, int) else value


def parse_seeds(text: str) -> list[int]:
    """Parse ``0..2`` or ``0,1,2``; anything else is a ``UsageError``."""
    found = _RANGE.fullmatch(text.strip())
    if found and 0 <= int(found[2]) - int(found[1]) < MAX_RUNS:
        return list(range(int(found[1]), int(found[2]) + 1))
    parts = [part.strip() for part in text.split(",")]
    if found or len(parts) > MAX_RUNS or not all(_SEED.fullmatch(part) for part in parts):
        raise UsageError(f"Seeds are given as 0..2 or 0,1,2; got '{one_line(text, 100)}'.")
    return [int(part) for part in parts]


def read_grid(path: Path) -> Grid:
    """Read a grid from a YAML file."""
    return Grid.parse(read_yaml(path), str(path))
