"""``avsb sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avsbench_harness.cli.common import DataOption, JsonOption, print_json, print_rich

if TYPE_CHECKING:
    from collections.abc import Sequence

    from avsbench_harness.launch.pool import Outcome
    from avsbench_harness.launch.sweep import Cell, Grid

JOBS = typer.Option("--jobs", min=1, help="Runs at a time: one per GPU, or sharing the cores.")


def sweep(
    file: Annotated[Path | None, typer.Argument(help="YAML with the grid, instead of the options.")] = None,
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
    status: Annotated[
        bool, typer.Option("--status", help="Print how the runs of the grid stand, and stop.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the runs, their hashes and their time, and stop.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Carry out every run of a grid that is not done yet; failures do not stop the rest.

    Several sweeps over one folder share the work: each run is done once.

    \b
    Examples:
      avsb sweep --method avsegformer,combo --backbone r50,pvt --task s4,ms3 --seeds 0..2 --data AVSBench
      avsb sweep grid.yaml --jobs 2
      avsb sweep grid.yaml --dry-run
    """
    from avsbench_harness.launch.sweep import cells

    options = {
        "method": method, "backbone": backbone, "task": task, "variant": variant, "seeds": seeds,
        "data": data, "preset": preset, "set": assignments,
    }  # fmt: skip
    planned = cells(_grid(file, {name: value for name, value in options.items() if value}), out, device)
    if dry_run:
        show_plan(planned, out, json)
    elif status:
        show_states(planned, json)
    else:
        carry_out(planned, jobs, out, json)


def carry_out(planned: Sequence[Cell], jobs: int, out: Path, json: bool) -> None:
    """Run what is missing and list how every run ended; one that failed makes the exit code 1."""
    from avsbench_harness.errors import AvsbError
    from avsbench_harness.launch.pool import run_all
    from avsbench_harness.results.page import write_leaderboard

    outcomes = run_all(planned, jobs=jobs, notify=_tell)
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
    """The runs of a grid with hash, state and estimated time."""
    from avsbench_harness.launch.pool import state_of
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
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("row", "run", "hash", "state", "time")
    for row in rows:
        seconds = row.get("seconds")
        table.add_row(
            Text(row["row"]),
            Text(row["run"]),
            row.get("hash", "")[:12],
            Text(row.get("reason") or row["state"]),
            "n/a (no record of such a run)" if seconds is None else _duration(seconds),
        )
    print_rich(table)
    left = [row for row in rows if row["state"] in ("pending", "running") and row.get("seconds") is not None]
    if left:
        typer.echo(f"estimated time of what is left: {_duration(sum(row['seconds'] for row in left))}")


def show_states(planned: Sequence[Cell], json: bool) -> None:
    """How every run of a grid stands."""
    from avsbench_harness.launch.pool import standing

    outcomes = standing(planned)
    if json:
        print_json([_plain(outcome) for outcome in outcomes])
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("run", "state", "reason")
    for outcome in outcomes:
        table.add_row(Text(outcome.name), outcome.state, Text(outcome.reason))
    print_rich(table)
    counts = {state: sum(outcome.state == state for outcome in outcomes) for state in _STATES}
    typer.echo(", ".join(f"{number} {state}" for state, number in counts.items()))


_STATES = ("pending", "running", "done", "failed")


def _grid(file: Path | None, options: dict[str, Any]) -> Grid:
    """The grid of a file, or of the options."""
    from avsbench_harness.engine.recipe import split_assignment
    from avsbench_harness.errors import UsageError
    from avsbench_harness.launch.sweep import Grid, read_grid

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


def _tell(outcome: Outcome) -> None:
    """One line when a run starts and when it ends."""
    from avsbench_harness.engine.progress import say

    took = f" in {_duration(outcome.seconds)}" if outcome.seconds else ""
    reason = f": {outcome.reason}" if outcome.reason else ""
    say(f"{outcome.state}: {outcome.name}{took}{reason}")


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"


def _plain(outcome: Outcome) -> dict[str, Any]:
    return {**vars(outcome), "log": str(outcome.log) if outcome.log else None}
