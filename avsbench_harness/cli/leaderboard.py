"""``avsb leaderboard``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avsbench_harness.cli.common import DataOption, JsonOption, print_json


def leaderboard(
    results: Annotated[Path, typer.Option("--results", help="Folder with the records.")] = Path("results"),
    backbone: Annotated[
        str | None, typer.Option("--backbone", help="Print rows with this backbone only; writes nothing.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="What to print: md, csv, latex or json.")] = "md",
    check: Annotated[
        bool,
        typer.Option("--check", help="Write nothing; exit with 1 if the page is not that of the records."),
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the static site with all runs to this folder too.")
    ] = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Write LEADERBOARD.md from the records in a folder, and print it.

    The site shows clips of the runs whose predictions are in submissions/ beside the records and whose data
    are at hand.

    \b
    Examples:
      avsb leaderboard
      avsb leaderboard --check
      avsb leaderboard --html site --data AVSBench
      avsb leaderboard --backbone pvt --format latex
    """
    from avsbench_harness.errors import AvsbError, MissingDataError, UsageError, unknown
    from avsbench_harness.leaderboard import page
    from avsbench_harness.leaderboard.table import tables, to_json
    from avsbench_harness.results.record import read_records

    if form not in ("md", "csv", "latex", "json"):
        raise unknown("format", form, ("md", "csv", "latex", "json"))
    if not results.is_dir():
        raise MissingDataError(f"There is no folder {results}; `avsb run` makes one, or pass --results.")
    if check and (html or backbone or form != "md"):
        raise UsageError("--check only compares the page; leave --html, --backbone and --format out.")
    if check:
        if page.is_stale(results):
            raise AvsbError(
                f"{results / page.PAGE} is not that of the records; `avsb leaderboard` renews it."
            )
        typer.echo(f"{results / page.PAGE} is that of the records.")
        return
    written = None if backbone else page.write_leaderboard(results)
    first = _write_site(results, html, data) if html else None
    made = tables(page.chosen(read_records(results), backbone), results)
    if json:
        places = {"page": written, "site": first}
        paths = {name: str(path) if path else None for name, path in places.items()}
        print_json({**paths, "tables": to_json(made)})
    elif form == "json":
        print_json(to_json(made))
    elif form == "csv":
        typer.echo(page.to_csv(made), nl=False)
    elif form == "latex":
        typer.echo(page.to_latex(made), nl=False)
    else:
        typer.echo(page.render(results, backbone), nl=False)
    for path in (written, first):
        if path:
            typer.echo(f"\nwritten: {path}", err=True)


def _write_site(results: Path, site: Path, data: Path | None) -> Path:
    from avsbench_harness.launch.resolve_solution import data_of
    from avsbench_harness.leaderboard.site import build

    return build(results, site, lambda record: data_of(record, data))
