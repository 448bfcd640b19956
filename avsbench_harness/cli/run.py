"""``avsb run``, ``avsb train``, ``avsb predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avsbench_harness.cli.common import JsonOption, print_json, print_rich, takes_run
from avsbench_harness.cli.robustness import ConditionsOption, robustness_lines, split_names

if TYPE_CHECKING:
    from rich.table import Table

    from avsbench_harness.engine.run import Run
    from avsbench_harness.results.record import Record


@takes_run
def run(
    planned: Run,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved spec and its hash, then exit.")
    ] = False,
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
    record = execute(planned)
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
def train(planned: Run, json: JsonOption = False) -> None:
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
    summary = train_or_load(planned)
    if rank() != 0:
        return
    if json:
        print_json({"run": planned.id, **summary.model_dump(mode="json")})
        return
    typer.echo(f"{planned.id}: {summary.steps} steps, weights of step {summary.selected_step}")
    typer.echo(f"weights: {planned.weights_file}")


@takes_run
def predict(
    planned: Run,
    split: Annotated[str, typer.Option("--split", help="test or val.")] = "test",
    json: JsonOption = False,
) -> None:
    """Write the submission of a trained run, or of other weights (--weights).

    Pass the options that the run was trained with. Protocols of the recipe that score masks of another size
    get a submission of their own beside it.

    \b
    Examples:
      avsb predict --method avsegformer --backbone pvt --data AVSBench
      avsb predict --method avsegformer --backbone pvt --data AVSBench --split val
    """
    from avsbench_harness.distributed import rank
    from avsbench_harness.launch.execute import predict as predict_run
    from avsbench_harness.launch.execute import train_or_load
    from avsbench_harness.tasks import get_split

    name = get_split(split)
    if planned.spec.weights is not None:
        train_or_load(planned)
    path = predict_run(planned, name)
    if rank() != 0:
        return
    if json:
        print_json({"run": planned.id, "split": name, "submission": str(path)})
    else:
        typer.echo(f"submission: {path}")


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
