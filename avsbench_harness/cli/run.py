"""``avsb run``, ``avsb train``, ``avsb predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avsbench_harness.cli.common import JsonOption, describes_run, print_json, print_rich

if TYPE_CHECKING:
    from rich.table import Table

    from avsbench_harness.engine.run import Run
    from avsbench_harness.results.record import Record


@describes_run
def run(
    planned: Run,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved spec and its hash, and stop.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Train, predict, score, record and rank one run.

    A run that was interrupted goes on where it stopped; one that is finished is not repeated. Without
    AVSBench on disk, a small synthetic set and a short recipe stand in.

    \b
    Examples:
      avsb run --method avsegformer --backbone pvt
      avsb run --method avsegformer --backbone r50 --task ms3 --data AVSBench --seed 1
      avsb run --method avsegformer --backbone pvt --set optimizer.lr=1.0e-4 --dry-run
      avsb run --method avsegformer --backbone r50 --task s4 --from-checkpoint avsegformer-released-s4-r50
      avsb run --method aqformer --backbone r50 --task ms3 --init RUN-ID
      avsb run --method avsegformer --backbone pvt --data AVSBench --nproc 4
      torchrun --nproc-per-node 4 -m avsbench_harness run --method avsegformer --backbone pvt --data AVSBench
    """
    from avsbench_harness.distributed import rank
    from avsbench_harness.launch.execute import execute
    from avsbench_harness.leaderboard.page import write_leaderboard

    if dry_run:
        if rank() == 0:
            _show_spec(planned, json)
        return
    record = execute(planned)
    if rank() != 0:
        return
    page = write_leaderboard(planned.record_file.parent)
    if json:
        print_json(record.model_dump(mode="json"))
    else:
        _show_record(planned, record, page)


@describes_run
def train(planned: Run, json: JsonOption = False) -> None:
    """Train one run to its end, or go on where it stopped.

    \b
    Examples:
      avsb train --method avsegformer --backbone pvt --data AVSBench
      avsb train --method avsegformer --backbone pvt --recipe mine.yaml --seed 3
    """
    from avsbench_harness.distributed import rank
    from avsbench_harness.errors import UsageError

    if planned.spec.weights is not None:
        raise UsageError("--from-checkpoint does without training; use `avsb run` or `avsb predict` with it.")
    checkpoint = planned.method.train(planned)
    if rank() != 0:
        return
    if json:
        print_json({"run": planned.id, **checkpoint.model_dump(mode="json")})
        return
    typer.echo(f"{planned.id}: {checkpoint.steps} steps, weights of step {checkpoint.selected_step}")
    typer.echo(f"weights: {planned.weights_file}")


@describes_run
def predict(
    planned: Run,
    split: Annotated[str, typer.Option("--split", help="test or val.")] = "test",
    json: JsonOption = False,
) -> None:
    """Write a trained run's submission, or a checkpoint's; the other options are those of its training.

    \b
    Examples:
      avsb predict --method avsegformer --backbone pvt --data AVSBench
      avsb predict --method avsegformer --backbone pvt --data AVSBench --split val
    """
    from avsbench_harness.distributed import rank
    from avsbench_harness.launch.execute import train_or_load
    from avsbench_harness.tasks import get_split

    part = get_split(split)
    if planned.spec.weights is not None:
        train_or_load(planned)
    path = planned.method.predict(planned, part)
    if rank() != 0:
        return
    if json:
        print_json({"run": planned.id, "split": part, "submission": str(path)})
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
    """A record's scores for people."""
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
