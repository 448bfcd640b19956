"""``avsb score``."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avsbench_harness.cli.common import JsonOption, SolutionOption, TruthDataOption, print_json, print_rich

if TYPE_CHECKING:
    from rich.table import Table

    from avsbench_harness.scoring import Scores, Unavailable
    from avsbench_harness.submission import Header


def score(
    submission: Annotated[Path, typer.Argument(help="The submission, an .npz.")],
    solution: SolutionOption = None,
    data: TruthDataOption = None,
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", help="A protocol's name, or 'all'; by default the canonical one."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Clips per batch, else the published number.")
    ] = None,
    part: Annotated[str, typer.Option("--part", help="Clips to score: all, public or private.")] = "all",
    per_clip: Annotated[
        Path | None, typer.Option("--per-clip", help="Write the per-clip table to this CSV file.")
    ] = None,
    record: Annotated[
        bool | None,
        typer.Option(
            "--record/--no-record",
            help="Write results/<run-id>.json; by default for runs of --out that have none yet.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder that holds runs/ and results/.")] = Path(),
    json: JsonOption = False,
) -> None:
    """Score a submission against the ground truth.

    A submission of a run in this folder also gets its record, from which leaderboards are made.

    \b
    Examples:
      avsb score submissions/RUN-ID.npz
      avsb score submissions/example.npz --solution submissions/example-solution.npz
      avsb score mine.npz --solution s4-test.npz --protocol all
      avsb score mine.npz --solution s4-test.npz --protocol avsbench --batch 4 --json
    """
    from avsbench_harness.errors import UsageError
    from avsbench_harness.launch.records import record_submission
    from avsbench_harness.launch.resolve_solution import ground_truth
    from avsbench_harness.launch.run_scores import recipe_protocols, score_with_protocols
    from avsbench_harness.scoring import Scores, get_protocol, score_protocols, score_submission
    from avsbench_harness.submission import read_solution, read_submission

    if protocol == "all" and (batch is not None or per_clip is not None):
        raise UsageError("--batch and --per-clip belong to one protocol; name it with --protocol.")
    with ExitStack() as stack:
        predicted = stack.enter_context(read_submission(submission))
        truth = stack.enter_context(read_solution(ground_truth(predicted.header, solution, data)))
        results: list[Scores | Unavailable]
        if protocol == "all":
            results = score_protocols(predicted, truth, part=part)
        else:
            get_protocol(truth.header.task, protocol, batch)  # a wrong name is told before the work
            also = recipe_protocols(out, predicted.header) if protocol is None and part == "all" else []
            if also:
                results = [*score_with_protocols(predicted, truth, also)]
            else:
                results = [score_submission(predicted, truth, protocol, batch=batch, part=part)]
        header = predicted.header
    if per_clip is not None:
        _write_table(per_clip, results[0])
    if _to_record(record, out, header, protocol, part):
        scores = [result for result in results if isinstance(result, Scores)]
        record_submission(out, submission, header, scores)
    if json:
        values = [result.to_json() for result in results]
        print_json(values if protocol == "all" else values[0])
        return
    notes = ["SYNTHETIC data" if truth.header.synthetic else truth.header.dataset]
    notes += [f"{part} clips"] if part != "all" else []
    print_rich(
        f"{header.method}: {header.task} {header.split}, {', '.join(notes)}, "
        f"solution {truth.fingerprint[:12]}",
        _table(results),
    )


def _to_record(asked: bool | None, out: Path, header: Header, protocol: str | None, part: str) -> bool:
    """Whether to write a record: only of canonical scores over all clips, and once per run."""
    from avsbench_harness.errors import UsageError

    canonical = protocol is None and part == "all"
    if asked and not canonical:
        raise UsageError("--record keeps canonical scores of all clips; leave --protocol and --part out.")
    if asked is not None:
        return asked
    if not (canonical and header.split == "test" and re.fullmatch(r"\w[\w.-]*", header.run)):
        return False
    trained_here = (out / "runs" / header.run / "training.json").is_file()
    return trained_here and not (out / "results" / f"{header.run}.json").exists()


def _write_table(path: Path, result: Scores | Unavailable) -> None:
    from avsbench_harness.files import write_text
    from avsbench_harness.scoring import Scores

    if isinstance(result, Scores):
        write_text(path, result.per_clip.to_csv(index=False))


def _table(results: list[Scores | Unavailable]) -> Table:
    """One row per metric of one protocol; the intervals stand beside the main metrics."""
    from rich.table import Table

    from avsbench_harness.scoring import Unavailable

    table = Table("protocol", "n", "metric", "value", "95 % interval")
    for result in results:
        if isinstance(result, Unavailable):
            table.add_row(result.protocol, "", f"n/a ({result.reason})", "", "")
            continue
        shown = result.metrics if len(results) == 1 else dict.fromkeys(result.main)
        for i, name in enumerate(shown):
            value = result.metrics[name]
            interval = result.intervals.get(name)
            table.add_row(
                result.label if i == 0 else "",
                str(result.n) if i == 0 else "",
                name,
                "n/a" if value is None else f"{value:.4f}",
                "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}",
            )
    return table
