"""The runs of an ablation table as a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avsbench_harness.ablation.definition import get_ablation
from avsbench_harness.errors import UsageError
from avsbench_harness.launch.grid import Change, Grid


@dataclass(frozen=True)
class AblationRequest:
    """Settings for the runs of an ablation table.

    Attributes:
        task: ``None`` for the first task of the paper's table.
        backbone: ``None`` for the first backbone of the paper's table.
        seeds: random seeds.
        data: folder of the data set.
        preset: preset of all rows.
        recipe: recipe file of all rows.
        pretrained: whether the backbone starts from ImageNet weights; ``None`` for the default.
        rows: names of the rows to run, empty for all; the full method is always included.
        overrides: recipe keys to change in every row.
    """

    task: str | None = None
    backbone: str | None = None
    seeds: Sequence[int] = (0,)
    data: Path | None = None
    preset: str | None = None
    recipe: Path | None = None
    pretrained: bool | None = None
    rows: Sequence[str] = ()
    overrides: dict[str, Any] | None = None


def ablation_grid(name: str, request: AblationRequest) -> Grid:
    """The grid of an ablation table.

    Args:
        name: ``method/table``.
        request: settings of the runs.

    Raises:
        UsageError: unknown table or row, or an override of a key that the rows change.
    """
    _, ablation = get_ablation(name)
    task = request.task or ablation.tasks[0]
    known = {row.name: row for row in ablation.rows_of(task)}
    missing = [row for row in request.rows if row not in known]
    if missing:
        raise UsageError(f"{name} has no row '{missing[0]}'; it has {', '.join(map(repr, known))}.")
    overrides = request.overrides or {}
    clash = set(ablation.keys(task)) & set(overrides)
    if clash:
        raise UsageError(f"The rows of {name} change '{min(clash)}' themselves; remove it from --set.")
    wanted = {*request.rows, ablation.full(task).name} if request.rows else set(known)
    return Grid(
        method=[name.rpartition("/")[0]],
        backbone=[request.backbone or ablation.backbones[0]],
        task=[task],
        variant=[ablation.variant],
        seeds=list(request.seeds),
        data=request.data,
        preset=request.preset,
        recipe=request.recipe,
        pretrained=request.pretrained,
        set={**ablation.set, **overrides},
        rows=[Change(name=row.name, set=row.set) for row in known.values() if row.name in wanted],
    )
