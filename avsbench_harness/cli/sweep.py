"""``avsb sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avsbench_harness.cli.common import DataOption, JsonOption, print_json, print_rich
from avsbench_harness.cli.live import count, display, duration, states_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from avsbench_harness.launch.slurm import Resources
    from avsbench_harness.launch.status import Outcome
    from avsbench_harness.launch.sweep import Cell, Grid

JOBS = typer.Option("--jobs", min=1, help="Runs at a time: one per GPU, or sharing the cores.")
EXECUTOR = typer.Option("--executor", help="local: processes of this machine; slurm: jobs of a cluster.")
RESOURCES = typer.Option("--resources", help="YAML with what each job of a cluster asks for.")


def sweep(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[status] [GRID]",
            help="YAML with the grid, instead of the options; after the word status the same as --status.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[str | None, typer.Option("--method", help="Names, separated by commas.")] = None,
    backbone: Annotated[str | None, typer.Option("--backbone", help="Names, separated by commas.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="Names, separated by commas.")] = None,
    variant: Annotated[str | None, typer.Option("--variant", help="Names, separated by commas.")] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="0..2, or 0,1,2.")] = None,
    data: DataOption = None,
    preset: Annotated[str | None, typer.Option("--preset", help="full, smoke or another of all.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A change to every recipe."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for runs/, submissions/ and results/.")] = Path(),
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda or cuda:N.")] = None,
    jobs: Annotated[int, JOBS] = 1,
    executor: Annotated[str, EXECUTOR] = "local",
    resources: Annotated[Path | None, RESOURCES] = None,
    status: Annotated[
        bool, typer.Option("--status", help="Print how the runs of the grid stand, and stop.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the runs, their hashes and their time, and stop.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Carry out every run of a grid that is not done yet; failures do not stop the rest.

    Several sweeps over one folder share the work: each run is done once. One that was stopped goes on when
    the same command is given again.

    \b
    Examples:
      avsb sweep --method avsegformer,combo --backbone r50,pvt --task s4,ms3 --seeds 0..2 --data AVSBench
      avsb sweep grid.yaml --jobs 2
      avsb sweep grid.yaml --dry-run
      avsb sweep grid.yaml --executor slurm --resources resources.yaml
      avsb sweep status grid.yaml
    """
    from avsbench_harness.launch.sweep import cells

    file, asked_status = _words(words or [])
    placed = read_placement(executor, resources)

    options = {
        "method": method, "backbone": backbone, "task": task, "variant": variant, "seeds": seeds,
        "data": data, "preset": preset, "set": assignments,
    }  # fmt: skip
    planned = cells(_grid(file, {name: value for name, value in options.items() if value}), out, device)
    if dry_run:
        show_plan(planned, out, json)
    elif status or asked_status:
        show_states(planned, json)
    else:
        carry_out(planned, jobs, out, json, placed)


def carry_out(planned: Sequence[Cell], jobs: int, out: Path, json: bool, resources: Resources | None) -> None:
    """Run what is missing and list how every run ended; one that failed makes the exit code 1.

    With ``resources`` the runs are jobs of a SLURM cluster, else ``jobs`` processes of this machine.
    """
    from avsbench_harness.errors import AvsbError
    from avsbench_harness.launch.local import run_all
    from avsbench_harness.launch.slurm import run_jobs
    from avsbench_harness.leaderboard.markdown import write_leaderboard

    with display(out) as notify:
        if resources is None:
            outcomes = run_all(planned, jobs=jobs, notify=notify)
        else:
            outcomes = run_jobs(planned, out=out, resources=resources, notify=notify)
    page = write_leaderboard(out / "results") if (out / "results").is_dir() else None
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    if json:
        print_json([_plain(outcome) for outcome in outcomes])
    else:
        for outcome in failed:
            log = f" (log: {outcome.log})" if outcome.log else ""
            typer.echo(f"failed: {outcome.name}: {outcome.reason}{log}")
        typer.echo(f"{len(outcomes) - len(failed)} of {len(outcomes)} runs done, {len(failed)} failed")
        if page:
            typer.echo(f"leaderboard: {page}")
    if failed:
        raise typer.Exit(AvsbError.exit_code)


def show_plan(planned: Sequence[Cell], out: Path, json: bool) -> None:
    """The runs of a grid with hash, state and estimated time; one that cannot be makes the exit code 1."""
    from avsbench_harness.errors import AvsbError
    from avsbench_harness.launch.status import state_of
    from avsbench_harness.launch.sweep import estimate
    from avsbench_harness.results.record import read_records

    results = out / "results"
    records = read_records(results) if results.is_dir() else []
    rows: list[dict[str, Any]] = []
    for cell in planned:
        if cell.run is None:
            rows.append({"row": cell.row, "run": cell.name, "state": "failed", "reason": cell.problem})
            continue
        rows.append(
            {
                "row": cell.row,
                "run": cell.run.id,
                "hash": cell.run.spec.hash,
                "state": state_of(cell.run),
                "seconds": estimate(cell.run, records),
            }
        )
    if json:
        print_json(rows)
    else:
        _print_plan(rows)
    if any(cell.run is None for cell in planned):
        raise typer.Exit(AvsbError.exit_code)


def _print_plan(rows: Sequence[dict[str, Any]]) -> None:
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(
        "row",
        Column("run", overflow="fold"),
        Column("hash", no_wrap=True),
        Column("state", overflow="fold"),
        "time",
    )
    for row in rows:
        seconds = row.get("seconds")
        table.add_row(
            Text(row["row"]),
            Text(row["run"]),
            row.get("hash", "")[:12],
            Text(row.get("reason", row["state"]).splitlines()[0]),
            "n/a (no record of such a run)" if seconds is None else duration(seconds),
        )
    print_rich(table)
    left = [row for row in rows if row["state"] != "done" and row.get("seconds") is not None]
    if left:
        typer.echo(f"estimated time of what is left: {duration(sum(row['seconds'] for row in left))}")


def show_states(planned: Sequence[Cell], json: bool) -> None:
    """How every run of a grid stands."""
    from avsbench_harness.launch.status import standing

    outcomes = standing(planned)
    if json:
        print_json([_plain(outcome) for outcome in outcomes])
        return
    print_rich(states_table(outcomes))
    typer.echo(count(outcomes))


def read_placement(executor: str, resources: Path | None) -> Resources | None:
    """What the jobs of a cluster ask for; ``None`` for processes of this machine.

    Raises:
        UsageError: no such executor, resources without a cluster, a malformed file, or no way to submit.
    """
    from avsbench_harness.errors import UsageError, unknown

    if executor not in ("local", "slurm"):
        raise unknown("executor", executor, ("local", "slurm"))
    if executor == "local":
        if resources is not None:
            raise UsageError("--resources is for --executor slurm; a local sweep takes --jobs.")
        return None
    from avsbench_harness.launch.slurm import Resources, check_executor, read_resources

    asked = Resources() if resources is None else read_resources(resources)
    check_executor("slurm")
    return asked


def _words(words: list[str]) -> tuple[Path | None, bool]:
    """The grid's file, and whether only its status is asked for."""
    from avsbench_harness.errors import UsageError

    asked = words[:1] == ["status"]
    files = words[1:] if asked else words
    if len(files) > 1:
        raise UsageError(f"A sweep takes one file with a grid; got {', '.join(files)}.")
    return (Path(files[0]) if files else None), asked


def _grid(file: Path | None, options: dict[str, Any]) -> Grid:
    """The grid of a file, or of the options."""
    from avsbench_harness.errors import UsageError
    from avsbench_harness.launch.sweep import Grid, read_grid
    from avsbench_harness.recipe.resolve import split_assignment

    if file is not None:
        if options:
            raise UsageError(f"The grid is in {file}; leave out --{min(options)}, or write it there.")
        return read_grid(file)
    if "method" not in options:
        raise UsageError("A sweep needs a YAML file or --method; see avsb sweep --help.")
    values = {
        name: value.split(",") if name in ("method", "backbone", "task", "variant") else value
        for name, value in options.items()
    }
    values["set"] = dict(map(split_assignment, options.get("set", [])))
    return Grid.parse(values, "the options of avsb sweep")


def _plain(outcome: Outcome) -> dict[str, Any]:
    beat = outcome.progress
    return {
        **vars(outcome),
        "log": str(outcome.log) if outcome.log else None,
        "progress": None if beat is None else beat.model_dump(mode="json"),
    }
