"""``avsb run``, ``avsb train``, ``avsb predict``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from avsbench_harness.cli.common import JsonOption, accepts_run, print_json, print_rich, takes_run
from avsbench_harness.cli.robustness import ConditionsOption, robustness_lines, split_names

if TYPE_CHECKING:
    from rich.table import Table

    from avsbench_harness.engine.run import Run
    from avsbench_harness.results.record import Record


def _known_trackers(names: list[str] | None) -> list[str] | None:
    """Check the trackers before anything is planned."""
    from avsbench_harness.tracking.trackers import check_trackers

    return list(check_trackers(names)) if names else None


LogOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--log",
        metavar="TRACKER",
        callback=_known_trackers,
        help="Log the training to tensorboard, wandb or trackio too; repeatable. Nothing is uploaded unless "
        "you configure the tracker to.",
    ),
]


@takes_run
def run(
    planned: Run,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved spec and its hash, then exit.")
    ] = False,
    log: LogOption = None,
    robustness: Annotated[
        bool,
        typer.Option("--robustness", help="Predict and score under audio conditions as well."),
    ] = False,
    conditions: ConditionsOption = None,
    json: JsonOption = False,
) -> None:
    """Train, predict, score, record and rank one run.

    An interrupted run resumes from its last checkpoint; a finished run is not repeated. Without AVSBench on
    disk, AVS-Mini and a short recipe are used instead.

    \b
    Examples:
      avsb run --method avsegformer --backbone pvt
      avsb run --method avsegformer --backbone r50 --task ms3 --data AVSBench --seed 1
      avsb run --method avsegformer --backbone pvt --set optimizer.lr=1.0e-4 --dry-run
      avsb run --method avsegformer --backbone r50 --task s4 --weights avsegformer-released-s4-r50
      avsb run --method aqformer --backbone r50 --task ms3 --init RUN-ID
      avsb run --method avsegformer --backbone pvt --log tensorboard --log trackio
      avsb run --method combo --task ms3 --robustness
      avsb run --method avsegformer --backbone pvt --data AVSBench --nproc 4
      torchrun --nproc-per-node 4 -m avsbench_harness run --method avsegformer --backbone pvt --data AVSBench
    """
    from avsbench_harness.distributed import rank
    from avsbench_harness.errors import UsageError
    from avsbench_harness.launch.execute import execute
    from avsbench_harness.launch.preflight import check_run
    from avsbench_harness.launch.robustness import measure_robustness
    from avsbench_harness.leaderboard.markdown import write_leaderboard
    from avsbench_harness.robustness.conditions import choose_conditions

    names = split_names(conditions)
    if names and not robustness:
        raise UsageError("--conditions has no effect without --robustness; add it.")
    choose_conditions(names)  # unknown ones are refused before the training
    if dry_run:
        check_run(planned)
        if rank() == 0:
            _show_spec(planned, json)
        return
    record = execute(replace(planned, trackers=tuple(log or ())))
    measured = measure_robustness(planned, "test", names) if robustness else None
    if rank() != 0:
        return
    page = write_leaderboard(planned.record_file.parent)
    if json:
        found = record.model_dump(mode="json")
        print_json(found if measured is None else {**found, "robustness": measured.model_dump(mode="json")})
        return
    _show_record(planned, record, page)
    if measured is not None:
        print_rich(*robustness_lines(measured))


@takes_run
def train(planned: Run, log: LogOption = None, json: JsonOption = False) -> None:
    """Train one run, or resume it from its last checkpoint.

    \b
    Examples:
      avsb train --method avsegformer --backbone pvt --data AVSBench
      avsb train --method avsegformer --backbone pvt --recipe mine.yaml --seed 3
    """
    from avsbench_harness.distributed import rank
    from avsbench_harness.errors import UsageError
    from avsbench_harness.launch.execute import train_or_load
    from avsbench_harness.launch.preflight import check_run

    if planned.spec.weights is not None:
        raise UsageError("--weights predicts without training; use it with `avsb run` or `avsb predict`.")
    check_run(planned, ("train", "val"), thorough=True)
    summary = train_or_load(replace(planned, trackers=tuple(log or ())))
    if rank() != 0:
        return
    if json:
        print_json({"run": planned.id, **summary.model_dump(mode="json")})
        return
    typer.echo(f"{planned.id}: {summary.steps} steps, weights of step {summary.selected_step}")
    typer.echo(f"weights: {planned.weights_file}")


@accepts_run("open")
def predict(
    planned: Run,
    split: Annotated[str, typer.Option("--split", help="test, val or train.")] = "test",
    saved: Annotated[
        str | None,
        typer.Option(
            "--saved", help="Predict with kept weights (recipe key keep) of this step, or with all."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write the submission of a trained run, or of other weights (--weights).

    Name the run, or pass the options that it was trained with. Protocols of the recipe that score masks of
    another size get a submission of their own beside it. The split needs no masks; --data may also be a
    folder with one folder of frames and a recording per clip.

    \b
    Examples:
      avsb predict RUN-ID --data AVSBench
      avsb predict --method avsegformer --backbone pvt --data AVSBench
      avsb predict --method avsegformer --backbone pvt --data AVSBench --split val
      avsb predict --method avsegformer --backbone pvt --data AVSBench --split val --saved all
    """
    from avsbench_harness.distributed import rank
    from avsbench_harness.engine.saved_weights import choose_saved
    from avsbench_harness.launch.execute import predict as predict_run
    from avsbench_harness.launch.execute import train_or_load
    from avsbench_harness.tasks import get_split

    name = get_split(split)
    if planned.spec.weights is not None and not planned.weights_file.is_file():
        train_or_load(planned)
    if saved is None:
        runs = [planned]
    else:
        runs = [replace(planned, saved=step) for step in choose_saved(planned, saved)]
    found = [
        {"run": run.id, "split": name, "submission": str(predict_run(run, name)), "step": run.saved}
        for run in runs
    ]
    if rank() != 0:
        return
    if not json:
        for one in found:
            typer.echo(f"submission: {one['submission']}")
    elif saved is not None:
        print_json(found)
    else:
        print_json({key: value for key, value in found[0].items() if key != "step"})


def _show_spec(planned: Run, json: bool) -> None:
    spec = planned.spec.model_dump(mode="json")
    if json:
        print_json({"run": planned.id, "hash": planned.spec.hash, "spec": spec})
        return
    import yaml

    typer.echo(yaml.safe_dump(spec, sort_keys=False, allow_unicode=True), nl=False)
    typer.echo(f"# hash: {planned.spec.hash}\n# run: {planned.id}")


def _show_record(planned: Run, record: Record, page: Path) -> None:
    print_rich(score_table(record))
    for note in record.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"submission: {planned.submission_file('test')}")
    typer.echo(f"record: {planned.record_file}")
    typer.echo(f"leaderboard: {page}")


def score_table(record: Record) -> Table:
    """Return a table of the scores of a record."""
    from rich.table import Table
    from rich.text import Text

    data = f"{record.data.name} {record.data.split}" + (" (SYNTHETIC)" if record.data.synthetic else "")
    table = Table(title=Text(f"{record.run_id}\n{record.task}, {data}"), title_justify="left")
    for heading in ("protocol", "metric", "value", "95 % interval"):
        table.add_column(heading)
    for entry in record.scores:
        for metric, value in entry.metrics.items():
            interval = entry.intervals.get(metric)
            table.add_row(
                entry.protocol,
                metric,
                "n/a (not defined on this split)" if value is None else f"{value:.4f}",
                "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}",
            )
    return table
