"""``avsb compare``: paired comparison of two submissions."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avsbench_harness.cli.common import JsonOption, SolutionOption, TruthDataOption, print_json, print_rich
from avsbench_harness.cli.score import BatchOption, PartOption

if TYPE_CHECKING:
    from rich.table import Table

    from avsbench_harness.scoring import Comparison


def compare(
    a: Annotated[str, typer.Argument(help="Submission A (.npz), or a run (id, prefix or folder).")],
    b: Annotated[str, typer.Argument(help="Submission B for the same split (.npz), or a run.")],
    solution: SolutionOption = None,
    data: TruthDataOption = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", help="Name of a protocol; defaults to the canonical one.")
    ] = None,
    batch: BatchOption = None,
    part: PartOption = "all",
    clips: Annotated[int, typer.Option("--clips", min=0, help="Number of clips to list.")] = 10,
    json: JsonOption = False,
) -> None:
    """Compare two submissions by paired bootstrap over clips.

    A run stands for its submission to the test split.

    \b
    Examples:
      avsb compare RUN-ID-A RUN-ID-B --data AVSBench
      avsb compare a.npz b.npz --solution s4-test.npz
      avsb compare a.npz b.npz --solution s4-test.npz --clips 30 --json
    """
    from avsbench_harness.launch.resolve_solution import ground_truth
    from avsbench_harness.launch.run_files import find_submission
    from avsbench_harness.scoring import compare as compare_scores
    from avsbench_harness.scoring import score_submission
    from avsbench_harness.submission import read_solution, read_submission

    with ExitStack() as stack:
        first, second = (stack.enter_context(read_submission(find_submission(one))) for one in (a, b))
        truth = stack.enter_context(read_solution(ground_truth(first.header, solution, data)))
        scores = [
            score_submission(submission, truth, protocol, batch=batch, part=part)
            for submission in (first, second)
        ]
        result = compare_scores(*scores)
        names = (first.header.method, second.header.method)
    if json:
        print_json({"a": str(a), "b": str(b), **result.to_json(clips)})
        return
    name = "SYNTHETIC data" if truth.header.synthetic else truth.header.dataset
    print_rich(
        f"A {names[0]}, B {names[1]}: {truth.header.task} {truth.header.split}, {name}, "
        f"{scores[0].label}, {scores[0].n} clips",
        _differences(result),
        "Clips that differ most:",
        _clips(result, clips),
    )


def _differences(result: Comparison) -> Table:
    from rich.table import Table

    table = Table("metric", "A", "B", "A - B", "95 % interval", "resamples A > B", "clips A > B")
    for difference in result.differences:
        interval = difference.interval
        table.add_row(
            difference.metric,
            _cell(difference.a),
            _cell(difference.b),
            _cell(difference.difference, "+.4f"),
            "n/a" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}",
            _cell(difference.better, ".1%"),
            _cell(difference.win_rate, ".1%"),
        )
    return table


def _clips(result: Comparison, count: int) -> Table:
    from rich.table import Table

    rows = result.per_clip.head(count)
    table = Table(*rows.columns)
    for row in rows.itertuples(index=False):
        table.add_row(*(value if isinstance(value, str) else _cell(value) for value in row))
    return table


def _cell(value: Any, form: str = ".4f") -> str:
    return "n/a" if value is None or value != value else format(value, form)
