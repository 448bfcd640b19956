"""``avsb sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from avsbench_harness.cli.common import (
    DataOption,
    DeviceOption,
    JsonOption,
    OutOption,
    print_json,
    print_rich,
)
from avsbench_harness.cli.live import count_by_state, duration, show_progress, states_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from avsbench_harness.launch.grid import Grid
    from avsbench_harness.launch.slurm import Resources
    from avsbench_harness.launch.status import Outcome
    from avsbench_harness.launch.sweep import Cell

#: Option types that ``avsb sweep`` and ``avsb ablate run`` share.
GridSetOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one key of every recipe; repeatable."),
]
JobsOption: TypeAlias = Annotated[
    int, typer.Option("--jobs", min=1, help="Concurrent runs: one per GPU, or sharing the cores.")
]
ExecutorOption: TypeAlias = Annotated[
    str,
    typer.Option("--executor", help="local: processes on this machine; slurm: jobs of a SLURM cluster."),
]
ResourcesOption: TypeAlias = Annotated[
    Path | None, typer.Option("--resources", help="YAML file with the resources of each SLURM job.")
]
DryRunOption: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", help="Print the runs, their hashes and estimated times, then exit.")
]


def sweep(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[status] [GRID]",
            help="YAML file with the grid, instead of options; `status` first is the same as --status.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[str | None, typer.Option("--method", help="Comma-separated methods.")] = None,
    backbone: Annotated[str | None, typer.Option("--backbone", help="Comma-separated backbones.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="Comma-separated tasks.")] = None,
    variant: Annotated[str | None, typer.Option("--variant", help="Comma-separated variants.")] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Random seeds: 0..2 or 0,1,2.")] = None,
    data: DataOption = None,
    preset: Annotated[str | None, typer.Option("--preset", help="Preset of every run.")] = None,
    assignments: GridSetOption = None,
    out: OutOption = Path(),
    device: DeviceOption = None,
    jobs: JobsOption = 1,
    executor: ExecutorOption = "local",
    resources: ResourcesOption = None,
    status: Annotated[
        bool, typer.Option("--status", help="Print the state of every run of the grid, then exit.")
    ] = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Execute all unfinished runs of a grid; a failed run does not stop the others.

    Several sweeps over one folder share the work: each run is executed once. Rerun the same command to
    resume a sweep that was stopped.

    \b
    Examples:
      avsb sweep --method avsegformer,combo --backbone r50,pvt --task s4,ms3 --seeds 0..2 --data AVSBench
      avsb sweep grid.yaml --jobs 2
      avsb sweep grid.yaml --dry-run
      avsb sweep grid.yaml --executor slurm --resources resources.yaml
      avsb sweep status grid.yaml
    """
    from avsbench_harness.launch.sweep import cells

    file, asked_status = _parse_words(words or [])
    job_resources = read_job_resources(executor, resources)
    options = {
        "method": method, "backbone": backbone, "task": task, "variant": variant, "seeds": seeds,
        "data": data, "preset": preset, "set": assignments,
    }  # fmt: skip
    grid = _read_grid(file, {name: value for name, value in options.items() if value})
    planned = cells(grid, out, device, check=not (status or asked_status))
    if dry_run:
        show_plan(planned, out, json)
    elif status or asked_status:
        show_states(planned, json)
    else:
        run_grid(planned, jobs, out, json, job_resources, ablations=grid.ablations)


def run_grid(
    planned: Sequence[Cell],
    jobs: int,
    out: Path,
    json: bool,
    resources: Resources | None,
    *,
    ablations: Sequence[str] = (),
) -> None:
    """Execute all unfinished runs, and write the leaderboard and the tables of ``ablations``.

    With ``resources`` the runs are SLURM jobs, otherwise ``jobs`` processes at a time on this machine. The
    outcome of each is printed; the exit code is 1 if one failed. Interrupted grids have tables, too.
    """
    try:
        _run_grid(planned, jobs, out, json, resources)
    finally:
        if ablations and (out / "results").is_dir():
            from avsbench_harness.ablation.export import write_tables

            for name in ablations:
                page, _ = write_tables(name, out / "results")
                typer.echo(f"table: {page}", err=json)


def _run_grid(planned: Sequence[Cell], jobs: int, out: Path, json: bool, resources: Resources | None) -> None:
    from avsbench_harness.errors import AvsbError
    from avsbench_harness.launch.local import run_all
    from avsbench_harness.launch.slurm import run_jobs
    from avsbench_harness.leaderboard.markdown import write_leaderboard

    with show_progress(out) as notify:
        if resources is None:
            outcomes = run_all(planned, jobs=jobs, notify=notify)
        else:
            outcomes = run_jobs(planned, out=out, resources=resources, notify=notify)
    page = write_leaderboard(out / "results") if (out / "results").is_dir() else None
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    if json:
        print_json([_to_json(outcome) for outcome in outcomes])
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
    """Print hash, state and estimated time of every run of a grid; exit with 1 if one cannot be planned."""
    from avsbench_harness.errors import AvsbError
    from avsbench_harness.launch.status import grid_status
    from avsbench_harness.launch.sweep import estimate
    from avsbench_harness.results.record import read_records

    results = out / "results"
    records = read_records(results) if results.is_dir() else []
    states = {outcome.name: outcome.state for outcome in grid_status(planned)}
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
                "state": states[cell.run.id],
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
            "n/a (no record of a similar run)" if seconds is None else duration(seconds),
        )
    print_rich(table)
    left = [row for row in rows if row["state"] != "done" and row.get("seconds") is not None]
    if left:
        typer.echo(f"estimated time of the remaining runs: {duration(sum(row['seconds'] for row in left))}")


def show_states(planned: Sequence[Cell], json: bool) -> None:
    """Print the state of every run of a grid."""
    from avsbench_harness.launch.status import grid_status

    outcomes = grid_status(planned)
    if json:
        print_json([_to_json(outcome) for outcome in outcomes])
        return
    print_rich(states_table(outcomes))
    typer.echo(count_by_state(outcomes))


def read_job_resources(executor: str, resources: Path | None) -> Resources | None:
    """Return the resources of SLURM jobs; ``None`` for the local executor.

    Raises:
        UsageError: unknown executor, resources for the local executor, a malformed file, or SLURM is not
            available.
    """
    from avsbench_harness.errors import UsageError, unknown

    if executor not in ("local", "slurm"):
        raise unknown("executor", executor, ("local", "slurm"))
    if executor == "local":
        if resources is not None:
            raise UsageError("--resources is for --executor slurm; a local sweep takes --jobs.")
        return None
    from avsbench_harness.launch.slurm import Resources, check_slurm, read_resources

    parsed = Resources() if resources is None else read_resources(resources)
    check_slurm()
    return parsed


def _parse_words(words: list[str]) -> tuple[Path | None, bool]:
    """Return the grid file, and whether the status was requested."""
    from avsbench_harness.errors import UsageError

    status = words[:1] == ["status"]
    files = words[1:] if status else words
    if len(files) > 1:
        raise UsageError(f"A sweep takes one file with a grid; got {', '.join(files)}.")
    return (Path(files[0]) if files else None), status


def _read_grid(file: Path | None, options: dict[str, Any]) -> Grid:
    """Return the grid of a file, or of the options."""
    from avsbench_harness.errors import UsageError
    from avsbench_harness.launch.grid import Grid, read_grid
    from avsbench_harness.recipe.resolve import split_assignment

    if file is not None:
        if options:
            raise UsageError(f"{file} defines the grid; leave out --{min(options)}, or set it in the file.")
        return read_grid(file)
    if "method" not in options:
        raise UsageError("A sweep needs a YAML file or --method; see avsb sweep --help.")
    values = {
        name: value.split(",") if name in ("method", "backbone", "task", "variant") else value
        for name, value in options.items()
    }
    values["set"] = dict(map(split_assignment, options.get("set", [])))
    return Grid.parse(values, "the options of avsb sweep")


def _to_json(outcome: Outcome) -> dict[str, Any]:
    heartbeat = outcome.progress
    return {
        **vars(outcome),
        "log": str(outcome.log) if outcome.log else None,
        "progress": None if heartbeat is None else heartbeat.model_dump(mode="json"),
    }
