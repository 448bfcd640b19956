"""``avsb results``: the records themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avsbench_harness.cli.common import JsonOption, print_json

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="The records that every table is made of."
)


@app.command()
def validate(
    results: Annotated[Path, typer.Option("--results", help="Folder with the records.")] = Path("results"),
    json: JsonOption = False,
) -> None:
    """Check every record in a folder: its schema, its name, its hashes and the tables beside it.

    The measurements of `avsb bench` are checked for their schema and name.

    \b
    Examples:
      avsb results validate
      avsb results validate --results elsewhere/results --json
    """
    from avsbench_harness.errors import AvsbError, MissingDataError
    from avsbench_harness.leaderboard.validate import faults, measurement_faults

    if not results.is_dir():
        raise MissingDataError(f"There is no folder {results}; `avsb run` makes one, or pass --results.")
    checked, found = faults(results)
    measured, more = measurement_faults(results)
    found += more
    if json:
        print_json({"records": checked, "measurements": measured, "faults": found})
    else:
        for fault in found:
            typer.echo(f"fault: {fault}")
        typer.echo(f"{checked} records, {measured} measurements, {len(found)} faults")
    if found:
        raise typer.Exit(AvsbError.exit_code)


@app.command()
def schema() -> None:
    """Print the JSON schema of a record.

    \b
    Examples:
      avsb results schema > record.schema.json
    """
    from avsbench_harness.results.record import Record

    print_json(Record.model_json_schema())
