"""Planned runs of grids, their records and estimated times."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from avsbench_harness.data.avsbench.tree import data_root
from avsbench_harness.engine.run import Run
from avsbench_harness.errors import AvsbError, MissingDataError
from avsbench_harness.launch.ablation_grid import AblationRequest, ablation_grid
from avsbench_harness.launch.datasets import choose_dataset
from avsbench_harness.launch.grid import Grid
from avsbench_harness.launch.request import OpenData, Request, open_data, plan
from avsbench_harness.recipe.resolve import assignments
from avsbench_harness.results.record import Record, read_record
from avsbench_harness.tasks import get_task

State: TypeAlias = Literal["pending", "queued", "running", "done", "failed"]


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
    opened = functools.cache(open_data)
    return [
        cell for part in _of_methods(grid) for cell in _cells_of_methods(part, out, device, check, opened)
    ]


def _of_methods(grid: Grid) -> list[Grid]:
    """Return a grid of methods as it is, and one of ablation tables as one grid per table and task."""
    if not grid.ablations:
        return [grid]
    return [
        ablation_grid(
            name,
            AblationRequest(
                task=task,
                backbone=backbone,
                seeds=tuple(grid.seeds),
                data=grid.data,
                preset=grid.preset,
                recipe=grid.recipe,
                pretrained=grid.pretrained,
                overrides=grid.set,
            ),
        )
        for name in grid.ablations
        for task in grid.task
        for backbone in grid.backbone
    ]


def _cells_of_methods(grid: Grid, out: Path, device: str | None, check: bool, opened: OpenData) -> list[Cell]:
    planned: list[Cell] = []
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


def _plan(request: Request, check: bool, opened: OpenData) -> Run:
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
