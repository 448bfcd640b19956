"""``avsb runs``: the runs in a folder."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from avsbench_harness.cli.common import JsonOption, print_json, print_rich

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from avsbench_harness.launch.runs import Difference, Removal, RunFacts, RunFiles

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, show, compare, watch and remove runs. RUN is an id, a unique prefix of one, or a folder.",
)

RunArgument: TypeAlias = Annotated[str, typer.Argument(metavar="RUN")]
OutOption: TypeAlias = Annotated[
    Path, typer.Option("--out", help="Folder with runs/, submissions/ and results/.")
]


@app.command("list")
def list_(
    out: OutOption = Path(),
    task: Annotated[str | None, typer.Option("--task", help="Only runs of this task.")] = None,
    method: Annotated[str | None, typer.Option("--method", help="Only runs of this method.")] = None,
    state: Annotated[
        str | None, typer.Option("--state", help="Only running, done, trained, stopped or failed runs.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the runs in a folder, the latest first.

    J is the main metric on the test split (mIoU for avss), val the best value on the validation split so far.

    \b
    Examples:
      avsb runs list
      avsb runs list --task ms3 --state done --json
    """
    from typing import get_args

    from avsbench_harness.errors import unknown
    from avsbench_harness.launch.runs import RunState, list_runs

    if state is not None and state not in get_args(RunState):
        raise unknown("state", state, get_args(RunState))
    wanted = {"task": task, "method": method, "state": state}
    found = [
        one
        for one in list_runs(out)
        if all(value is None or getattr(one, key) == value for key, value in wanted.items())
    ]
    if json:
        print_json([one.to_json() for one in found])
    elif found:
        print_rich(_list_table(found))
    else:
        typer.echo(f"no runs in {out / 'runs'}")


@app.command()
def show(run: RunArgument, out: OutOption = Path(), json: JsonOption = False) -> None:
    """Show one run: spec, recipe changes, scores and files.

    \b
    Examples:
      avsb runs show ms3-avsegformer
      avsb runs show demo/runs/ms3-avsegformer-lite0-s0-0123456789 --json
    """
    from avsbench_harness.launch.runs import RunFiles, read_spec, run_facts
    from avsbench_harness.results.record import read_record

    files = RunFiles.find(run, out)
    facts = run_facts(files)
    record = read_record(files.record) if files.record.is_file() else None
    if json:
        values = None if record is None else record.model_dump(mode="json")
        print_json(
            {**facts.to_json(), "folder": str(files.folder), "spec": read_spec(files), "record": values}
        )
        return
    print_rich(_facts_table(facts, files))
    if record is not None and record.scores:
        from avsbench_harness.cli.run import score_table

        print_rich(score_table(record))
        for note in record.notes:
            typer.echo(f"note: {note}")


@app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A")],
    b: Annotated[str, typer.Argument(metavar="B")],
    out: OutOption = Path(),
    json: JsonOption = False,
) -> None:
    """Show how two runs differ in spec, environment and scores.

    \b
    Examples:
      avsb runs diff ms3-combo-pvt-s0 ms3-combo-pvt-s1
    """
    from avsbench_harness.launch.runs import RunFiles, diff_runs

    first, second = (RunFiles.find(one, out) for one in (a, b))
    found = diff_runs(first, second)
    if json:
        print_json({"a": first.id, "b": second.id, "differences": [vars(one) for one in found]})
        return
    if not found:
        typer.echo(f"{first.id} and {second.id} do not differ")
        return
    print_rich(f"A {first.id}\nB {second.id}", _diff_table(found))


@app.command()
def path(
    run: RunArgument,
    of: Annotated[
        str, typer.Option("--of", help="folder, weights, log, spec, record or submission.")
    ] = "folder",
    out: OutOption = Path(),
    json: JsonOption = False,
) -> None:
    """Print the path of a run's folder, or of one of its files.

    \b
    Examples:
      cd "$(avsb runs path ms3-avsegformer)"
      avsb runs path ms3-avsegformer --of weights
    """
    from avsbench_harness.errors import MissingDataError, unknown
    from avsbench_harness.launch.runs import RunFiles

    files = RunFiles.find(run, out)
    known = {
        "folder": files.folder,
        "weights": files.folder / "weights.safetensors",
        "log": files.folder / "log.jsonl",
        "spec": files.folder / "spec.json",
        "record": files.record,
        "submission": files.out / "submissions" / f"{files.id}.npz",
    }
    if of not in known:
        raise unknown("file of a run", of, known)
    if not known[of].exists():
        raise MissingDataError(f"{files.id} has no {of}: {known[of]} does not exist.")
    if json:
        print_json({"run": files.id, "path": str(known[of])})
    else:
        typer.echo(str(known[of]))


@app.command()
def rm(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    out: OutOption = Path(),
    json: JsonOption = False,
) -> None:
    """Remove runs: their folders (weights, logs, checkpoints) and submissions; records stay.

    Says first what is lost, and asks.

    \b
    Examples:
      avsb runs rm ms3-avsegformer-lite0-s0
      avsb runs rm RUN-ID-A RUN-ID-B --yes
    """
    from avsbench_harness.errors import UsageError
    from avsbench_harness.launch.runs import RunFiles, plan_removal, remove

    planned = [plan_removal(RunFiles.find(run, out)) for run in dict.fromkeys(runs)]
    if not json:
        for removal in planned:
            _show_removal(removal)
    if not yes:
        if json or not sys.stdin.isatty():
            raise UsageError("`avsb runs rm` asks before it removes anything; pass --yes to remove.")
        typer.confirm(f"Remove {len(planned)} run{'s' if len(planned) > 1 else ''}?", abort=True)
    for removal in planned:
        remove(removal)
    if json:
        print_json(
            [
                {"run": one.files.id, "removed": [str(path) for path in one.paths], "losses": one.losses}
                for one in planned
            ]
        )
    else:
        typer.echo(f"removed {', '.join(one.files.id for one in planned)}")


@app.command()
def watch(
    run: RunArgument,
    every: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between refreshes.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print the page once and exit.")] = False,
    out: OutOption = Path(),
    json: JsonOption = False,
) -> None:
    """Watch a run: progress, losses, learning rate, speed and validations, until it ends.

    Without a terminal, the page is printed once.

    \b
    Examples:
      avsb runs watch ms3-avsegformer
      avsb runs watch ms3-avsegformer --once
    """
    from rich.console import Console
    from rich.live import Live

    from avsbench_harness.cli.watch_page import watch_page
    from avsbench_harness.launch.runs import RunFiles
    from avsbench_harness.launch.watch import watch_state

    files = RunFiles.find(run, out)
    if json:
        print_json(watch_state(files).to_json())
        return
    console = Console(markup=False, highlight=False)
    if once or not console.is_terminal:
        print_rich(watch_page(watch_state(files)))
        return
    state = watch_state(files)
    with Live(watch_page(state), console=console, auto_refresh=False) as live:
        while state.facts.state == "running":
            time.sleep(every)
            state = watch_state(files)
            live.update(watch_page(state), refresh=True)


def _list_table(found: Sequence[RunFacts]) -> Table:
    from rich.table import Column, Table
    from rich.text import Text

    # Ids stay on one line of 80 columns, so that they can be copied; the recipe is below them.
    width = min(max((len(one.run) for one in found), default=0), 40)
    table = Table(Column("run", overflow="fold", min_width=width), box=None, padding=(0, 1, 0, 0))
    table.add_column("state", no_wrap=True)
    for heading in ("J", "val", "step", "age", "size"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in found:
        what = ", ".join(filter(None, (one.variant, *_recipe(one).splitlines())))
        table.add_row(
            Text.assemble(one.run, "\n", (f"  {what}", "dim")), one.state, _percent(one.score),
            _percent(one.validation), _steps(one), age(one.age), size(one.size),
        )  # fmt: skip
    return table


def _facts_table(facts: RunFacts, files: RunFiles) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, title=Text(facts.run), title_justify="left")
    rows = {
        "state": facts.state + (f": {facts.reason}" if facts.reason else ""),
        "task, data": f"{facts.task}, {facts.data}",
        "method": f"{facts.method} ({facts.variant}), backbone {facts.backbone}, seed {facts.seed}",
        "recipe": _recipe(facts),
        f"{facts.metric} (test)": _percent(facts.score),
        f"{facts.metric} (best val)": _percent(facts.validation),
        "steps": _steps(facts),
        "age, size": f"{age(facts.age)}, {size(facts.size)}",
        "folder": str(files.folder),
        "submissions": "\n".join(map(str, files.submissions)),
        "record": str(files.record) if files.record.is_file() else "",
    }
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


def _diff_table(found: Sequence[Difference]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for heading in ("", "key", "A", "B"):
        table.add_column(heading, overflow="fold")
    for one in found:
        both = all(isinstance(value, float) for value in (one.a, one.b))
        change = f" ({one.b - one.a:+.4f})" if both and one.group == "scores" else ""
        table.add_row(one.group, Text(one.key), Text(_value(one.a)), Text(_value(one.b) + change))
    return table


def _show_removal(removal: Removal) -> None:
    typer.echo(f"{removal.files.id}: {size(removal.size)}")
    for one in removal.paths:
        typer.echo(f"  removes {one}")
    for loss in removal.losses:
        typer.echo(f"  {loss}")


def _recipe(facts: RunFacts) -> str:
    if facts.changes is None:
        return f"{facts.preset} (preset not available here)"
    return "\n".join([facts.preset, *facts.changes])


def _steps(facts: RunFacts) -> str:
    return "" if facts.total is None else f"{facts.step}/{facts.total}"


def _percent(value: float | None) -> str:
    from avsbench_harness.leaderboard.formatting import percent

    return "" if value is None else percent(value)


def _value(value: object) -> str:
    return "n/a" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def age(seconds: float) -> str:
    """Format a duration with its largest unit: ``3 min``."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(count: int) -> str:
    """Format a number of bytes: ``12.3 MB``."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
