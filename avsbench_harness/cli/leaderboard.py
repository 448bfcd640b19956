"""``avsb leaderboard``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avsbench_harness.cli.common import JsonOption, print_json


def leaderboard(
    results: Annotated[Path, typer.Option("--results", help="Folder with the records.")] = Path("results"),
    json: JsonOption = False,
) -> None:
    """Write LEADERBOARD.md from the records in a folder, and print it.

    \b
    Examples:
      avsb leaderboard
      avsb leaderboard --results results --json
    """
    from avsbench_harness.errors import MissingDataError
    from avsbench_harness.results.leaderboard import to_json, write_leaderboard
    from avsbench_harness.results.record import read_records

    if not results.is_dir():
        raise MissingDataError(f"There is no folder {results}; `avsb run` makes one, or pass --results.")
    page = write_leaderboard(results)
    if json:
        print_json({"page": str(page), "tables": to_json(read_records(results))})
    else:
        typer.echo(page.read_text(encoding="utf-8"), nl=False)
        typer.echo(f"\nwritten: {page}", err=True)
