"""``avsb score``: scores of a submission."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from avsbench_harness.cli.common import JsonOption, SolutionOption, TruthDataOption, print_json, print_rich

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from avsbench_harness.scoring import Scores, Unavailable
    from avsbench_harness.submission import Header, Solution, Submission

BatchOption: TypeAlias = Annotated[
    int | None, typer.Option("--batch", min=1, help="Clips per batch; defaults to the published number.")
]
PartOption: TypeAlias = Annotated[
    str, typer.Option("--part", help="Part of the clips: all, public or private.")
]
PER_CLIP = typer.Option("--per-clip", help="Write the per-clip table to this CSV file.")
RECORD = typer.Option(
    "--record/--no-record",
    help="Write results/<run-id>.json; by default for runs in --out without a record.",
)


def score(
    submission: Annotated[Path, typer.Argument(help="Submission (.npz).")],
    solution: SolutionOption = None,
    data: TruthDataOption = None,
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", help="Name of a protocol, or 'all'; defaults to the canonical one."),
    ] = None,
    batch: BatchOption = None,
    part: PartOption = "all",
    per_clip: Annotated[Path | None, PER_CLIP] = None,
    record: Annotated[bool | None, RECORD] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder with runs/ and results/.")] = Path(),
    json: JsonOption = False,
) -> None:
    """Score a submission against the ground truth.

    The scores of a run in --out are also written as its record, the source of leaderboards.

    \b
    Examples:
      avsb score submissions/RUN-ID.npz
      avsb score submissions/example.npz --solution submissions/example-solution.npz
      avsb score mine.npz --solution s4-test.npz --protocol all
      avsb score mine.npz --solution s4-test.npz --protocol avsbench --batch 4 --json
    """
    from avsbench_harness.errors import UsageError
    from avsbench_harness.launch.resolve_solution import ground_truth
    from avsbench_harness.scoring import score_protocols
    from avsbench_harness.submission import read_solution, read_submission

    if protocol == "all" and (batch is not None or per_clip is not None):
        raise UsageError("--batch and --per-clip need a single protocol; select one with --protocol.")
    with ExitStack() as stack:
        predicted = stack.enter_context(read_submission(submission))
        truth = stack.enter_context(read_solution(ground_truth(predicted.header, solution, data)))
        results: list[Scores | Unavailable]
        if protocol == "all":
            results = score_protocols(predicted, truth, part=part)
        else:
            results = [*_score(predicted, truth, protocol, batch, part, out)]
    header = predicted.header
    if per_clip is not None:
        _write_per_clip(per_clip, results[0])
    if _should_record(record, out, header, protocol, part):
        written = _write_record(out, submission, header, results)
        typer.echo(f"written: {written}", err=True)
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


def _score(
    submission: Submission,
    solution: Solution,
    protocol: str | None,
    batch: int | None,
    part: str,
    out: Path,
) -> list[Scores]:
    """Score under one protocol; canonical scores of a run also under the other protocols of its record."""
    from avsbench_harness.launch.run_scores import recipe_protocols, score_with_protocols
    from avsbench_harness.scoring import get_protocol, score_submission

    get_protocol(solution.header.task, protocol, batch)  # raise errors before scoring
    further = recipe_protocols(out, submission.header) if protocol is None and part == "all" else []
    if further:
        return score_with_protocols(submission, solution, further)
    return [score_submission(submission, solution, protocol, batch=batch, part=part)]


def _should_record(
    requested: bool | None, out: Path, header: Header, protocol: str | None, part: str
) -> bool:
    """Whether to write a record: only for canonical scores of all clips, and once per run."""
    from avsbench_harness.errors import UsageError

    canonical = protocol is None and part == "all"
    if requested and not canonical:
        raise UsageError("--record needs canonical scores of all clips; remove --protocol and --part.")
    if requested is not None:
        return requested
    if not (canonical and header.split == "test" and re.fullmatch(r"\w[\w.-]*", header.run)):
        return False
    trained_here = (out / "runs" / header.run / "training.json").is_file()
    return trained_here and not (out / "results" / f"{header.run}.json").exists()


def _write_record(
    out: Path, submission: Path, header: Header, results: Sequence[Scores | Unavailable]
) -> Path:
    """Write the record and its per-clip files; return the path of the record."""
    from avsbench_harness.launch.records import record_submission
    from avsbench_harness.scoring import Scores

    scores = [result for result in results if isinstance(result, Scores)]
    record = record_submission(out, submission, header, scores)
    return out / "results" / f"{record.run_id}.json"


def _write_per_clip(path: Path, result: Scores | Unavailable) -> None:
    from avsbench_harness.files import write_text
    from avsbench_harness.scoring import Scores

    if isinstance(result, Scores):
        write_text(path, result.per_clip.to_csv(index=False))


def _table(results: list[Scores | Unavailable]) -> Table:
    """One row per metric, with intervals of the main metrics; several protocols show main metrics only."""
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
