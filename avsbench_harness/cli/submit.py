"""``avsb submit``: validation of submissions."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from avsbench_harness.cli.common import JsonOption, print_json

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Validate submissions.")


@app.callback()
def _submit() -> None:
    """Validate submissions."""


@app.command()
def check(
    submission: Annotated[Path, typer.Argument(help="Submission (.npz).")],
    solution: Annotated[
        Path | None,
        typer.Option("--solution", help="Also check the clips against this solution (.npz)."),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol", help="Protocol to score by, with --solution; defaults to the canonical one."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """List all faults of a submission; exit with 3 if there are any.

    \b
    Examples:
      avsb submit check mine.npz
      avsb submit check mine.npz --solution s4-test.npz --json
      avsb submit check mine.npz --solution s4-test.npz --protocol avsegformer
    """
    from avsbench_harness.errors import SubmissionError, UsageError
    from avsbench_harness.scoring import find_faults
    from avsbench_harness.submission import read_solution

    if protocol is not None and solution is None:
        raise UsageError("--protocol needs the ground truth; pass --solution.")
    with ExitStack() as stack:
        truth = stack.enter_context(read_solution(solution)) if solution is not None else None
        faults = find_faults(submission, truth, protocol)
    if json:
        print_json({"submission": str(submission), "valid": not faults, "faults": faults})
    else:
        for fault in faults:
            typer.echo(f"{submission}: {fault}")
        if not faults:
            checked = "" if truth else "; pass --solution to check clips and size against the ground truth"
            typer.echo(f"{submission}: no faults{checked}")
    if faults:
        raise typer.Exit(SubmissionError.exit_code)
