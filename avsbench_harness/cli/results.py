"""``avsb results``: validation and schema of records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avsbench_harness.cli.common import JsonOption, print_json

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Validate records and print their JSON schema."
)


@app.command()
def validate(
    results: Annotated[Path, typer.Option("--results", help="Folder with the records.")] = Path("results"),
    json: JsonOption = False,
) -> None:
    """Check every record in a folder: schema, name and hashes, and every score against the per-clip files.

    Submissions in submissions/ next to the records are scored again if their ground truth is in the cache.

    Measurements of `avsb bench` are checked for schema and name, records of `avsb robustness` against their
    per-clip files.

    \b
    Examples:
      avsb results validate
      avsb results validate --results elsewhere/results --json
    """
    from avsbench_harness.errors import AvsbError, MissingDataError, one_line
    from avsbench_harness.results.folder import folder_faults, read_results
    from avsbench_harness.results.rescore import rescore_faults
    from avsbench_harness.results.robustness import robustness_files
    from avsbench_harness.results.robustness_faults import robustness_faults

    if not results.is_dir():
        raise MissingDataError(f"There is no folder {results}; create it with `avsb run`, or pass --results.")
    content = read_results(results)
    found = [*folder_faults(content), *rescore_faults(content)]
    robustness = robustness_files(results)
    found += [f"{path}: {fault}" for path in robustness for fault in robustness_faults(path)]
    records = len(content.records) + len(content.refused)
    measurements = len(content.measurements) + len(content.refused_measurements)
    if json:
        print_json(
            {
                "records": records,
                "measurements": measurements,
                "robustness": len(robustness),
                "faults": found,
            }
        )
    else:
        for fault in found:
            typer.echo(f"fault: {one_line(fault, 1000)}")
        more = f"{len(robustness)} robustness records, " if robustness else ""
        typer.echo(f"{records} records, {measurements} measurements, {more}{len(found)} faults")
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
