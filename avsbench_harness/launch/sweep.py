"""Grids of runs: every combination of methods, backbones, tasks, variants, seeds and recipe changes."""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.data.avsbench.tree import data_root
from avsbench_harness.engine.run import Run
from avsbench_harness.errors import AvsbError, MissingDataError, UsageError, one_line
from avsbench_harness.launch.datasets import choose_dataset
from avsbench_harness.launch.request import Request, open_data, plan
from avsbench_harness.recipe.resolve import assignments
from avsbench_harness.recipe.schema import Seed
from avsbench_harness.recipe.yaml_reader import read_yaml
from avsbench_harness.results.record import Record, read_record
from avsbench_harness.schema import PlainValues, Schema
from avsbench_harness.tasks import get_task

State: TypeAlias = Literal["pending", "queued", "running", "done", "failed"]

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
    the working directory.
    """

    method: list[str] = Field(min_length=1)
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
    def _bounded(self) -> Grid:
        lists = (self.rows, self.task, self.method, self.backbone, self.variant, self.seeds)
        count = math.prod(len(values) for values in lists)
        if count > MAX_RUNS:
            raise ValueError(f"the grid has {count} runs, and at most {MAX_RUNS} are possible")
        return self

    @field_validator("method", "backbone", "task", "variant", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if value is None or isinstance(value, str) else value

    @field_validator("seeds", mode="before")
    @classmethod
    def _range_is_a_list(cls, value: Any) -> Any:
        return parse_seeds(value) if isinstance(value, str) else [value] if isinstance(value, int) else value


@dataclass(frozen=True)
class Cell:
    """One combination of a grid, and the run planned for it.

    Attributes:
        row: name of the grid's row.
        request: the combination.
        run: the planned run, ``None`` if the combination is invalid.
        problem: the reason.
    """

    row: str
    request: Request
    run: Run | None
    problem: str = ""

    @property
    def name(self) -> str:
        """The run's id, or a description of the request if there is no run."""
        if self.run is not None:
            return self.run.id
        asked = self.request
        return f"{asked.task}-{asked.method}-{asked.backbone}-s{asked.seed}"


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


def cells(grid: Grid, out: Path, device: str | None = None, *, check: bool = True) -> list[Cell]:
    """Plan every run of a grid; an invalid combination becomes a cell without a run.

    Args:
        grid: the grid.
        out: folder for ``runs/``, ``submissions/`` and ``results/``.
        device: ``cpu``, ``cuda``, ``cuda:N``; defaults to CUDA if available.
        check: also check every network and the files of its data, see ``plan`` and ``check_run``.

    Raises:
        MissingDataError: the data folder is missing, or has none of the grid's tasks.
    """
    _check_data(grid)
    if check:
        from avsbench_harness.launch.preflight import check_output  # imports torch, which states do not need

        check_output(out)
    planned: list[Cell] = []
    opened = functools.cache(open_data)
    combinations = itertools.product(
        grid.rows, grid.task, grid.method, grid.backbone, grid.variant, grid.seeds
    )
    for row, task, method, backbone, variant, seed in combinations:
        request = Request(
            method=method,
            backbone=backbone,
            task=task,
            variant=variant,
            data=grid.data,
            preset=grid.preset,
            recipe=grid.recipe,
            assignments=assignments({**grid.set, **row.set}),
            pretrained=grid.pretrained,
            seed=seed,
            out=out,
            device=device,
        )
        try:
            planned.append(Cell(row.name, request, _plan(request, check, opened)))
        except AvsbError as error:
            planned.append(Cell(row.name, request, None, str(error)))
    return planned


def _plan(
    request: Request, check: bool, opened: Callable[[str, Path | None, bool], tuple[Dataset, str]]
) -> Run:
    run = plan(request, check=check, opened=opened)
    if check:
        from avsbench_harness.launch.preflight import check_run

        check_run(run)
    return run


def _check_data(grid: Grid) -> None:
    """Report missing data once, not once per run."""
    if data_root(grid.data) is None:
        return
    problems = []
    for name in dict.fromkeys(grid.task):
        try:
            choose_dataset(get_task(name), grid.data)
        except AvsbError as error:
            problems.append(error)
        else:
            return
    if isinstance(problems[0], MissingDataError):
        raise problems[0]


def distinct(planned: Iterable[Cell]) -> list[Cell]:
    """The cells with a run, without repeated runs, in order."""
    found = {cell.run.id: cell for cell in reversed(list(planned)) if cell.run is not None}
    return list(reversed(found.values()))


def record_of(run: Run) -> Record | None:
    """The record of a run, if any."""
    return read_record(run.record_file) if run.record_file.is_file() else None


def estimate(run: Run, records: Sequence[Record]) -> float | None:
    """Estimated training time of a run in seconds; ``None`` without records of such runs.

    The median of the records with the same method, backbone, task, preset and data.
    """
    import statistics

    spec = run.spec
    asked = (spec.method, spec.backbone, spec.task, spec.preset, spec.data.fingerprint)
    seconds = [
        record.training.seconds
        for record in records
        if record.training is not None
        and (record.method, record.backbone, record.task, record.preset, record.data.fingerprint) == asked
    ]
    return statistics.median(seconds) if seconds else None
