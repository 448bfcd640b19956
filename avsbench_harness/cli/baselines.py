"""``avsb data baselines``: scores of trivial predictions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avsbench_harness.cli.common import JsonOption, RequiredTaskOption, print_json, print_rich
from avsbench_harness.errors import MissingDataError

if TYPE_CHECKING:
    from rich.table import Table

    from avsbench_harness.scoring import Scores


def baselines(
    task: RequiredTaskOption,
    root: Annotated[Path | None, typer.Argument(help="Folder with AVSBench; default: AVSB_DATA_DIR.")] = None,
    split: Annotated[str, typer.Option("--split", help="test or val.")] = "test",
    json: JsonOption = False,
) -> None:
    """Score trivial predictions: nothing, everything, and for composed data every drawn object.

    A model whose scores do not exceed those of every object has not learned which object sounds. F of binary
    masks is the maximum over thresholds that include 0, which every pixel passes; F_half compares the masks.

    \b
    Examples:
      avsb data baselines avs-mini --task ms3
      avsb data baselines AVSBench --task s4 --split val --json
    """
    from avsbench_harness.data.avsbench.layout import open_dataset
    from avsbench_harness.data.avsbench.tree import data_root
    from avsbench_harness.engine.solutions import solution_file
    from avsbench_harness.robustness.baselines import baseline_scores
    from avsbench_harness.submission import read_solution
    from avsbench_harness.tasks import get_split, get_task

    place, kind, part = data_root(root), get_task(task), get_split(split)
    if place is None:
        raise MissingDataError("No data root: pass the folder that contains AVSBench, or set AVSB_DATA_DIR.")
    dataset = open_dataset(place, kind)
    with read_solution(solution_file(dataset, part)) as solution:
        found = baseline_scores(dataset, part, solution)
    if json:
        print_json({name: scores.to_json() for name, scores in found.items()})
        return
    name = "SYNTHETIC data" if dataset.synthetic else dataset.name
    first = next(iter(found.values()))
    print_rich(f"{name}, {kind.name} {part}, {first.label}, {first.n} clips", _table(found))


def _table(found: dict[str, Scores]) -> Table:
    """One row per metric, one column per prediction."""
    from rich.table import Table

    table = Table("metric", *found)
    for metric in next(iter(found.values())).metrics:
        values = (scores.metrics[metric] for scores in found.values())
        table.add_row(metric, *("n/a" if value is None else f"{value:.4f}" for value in values))
    return table
