"""``avsb submit``: checking submissions before they are handed in."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from avsbench_harness.cli.common import JsonOption, print_json

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Check submissions.")


@app.callback()
def _submit() -> None:
    """Check submissions."""


@app.command()
def check(
    submission: Annotated[Path, typer.Argument(help="The submission, an .npz.")],
    solution: Annotated[
        Path | None,
        typer.Option("--solution", help="Also check that the clips are those of this solution, an .npz."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """List every fault of a submission; exit 3 if there is one.

    \b
    Examples:
      avsb submit check mine.npz
      avsb submit check mine.npz --solution s4-test.npz --json
    """
    from avsbench_harness.errors import SubmissionError
    from avsbench_harness.submission import check_submission, read_solution

    with ExitStack() as stack:
        truth = stack.enter_context(read_solution(solution)) if solution is not None else None
        faults = check_submission(submission, truth)
    if json:
        print_json({"submission": str(submission), "valid": not faults, "faults": faults})
    else:
        for fault in faults:
            typer.echo(f"{submission}: {fault}")
        if not faults:
            checked = "" if truth else "; pass --solution to check its clips against the ground truth"
            typer.echo(f"{submission}: no faults{checked}")
    if faults:
        raise typer.Exit(SubmissionError.exit_code)
