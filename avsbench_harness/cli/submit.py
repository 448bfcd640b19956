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
        typer.Option("--protocol", help="Protocol to score by; defaults to the canonical one."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """List all faults of a submission; exit with 3 if there are any.

    Without --solution, the format, the values of every clip and the masks' size (224 x 224) are checked; with
    it, also the clips, their numbers of frames and the version of the ground truth.

    \b
    Examples:
      avsb submit check mine.npz
      avsb submit check mine.npz --solution s4-test.npz --json
      avsb submit check mine.npz --solution s4-test.npz --protocol avsegformer
    """
    from avsbench_harness.errors import SubmissionError
    from avsbench_harness.scoring import find_faults
    from avsbench_harness.submission import read_solution

    with ExitStack() as stack:
        truth = stack.enter_context(read_solution(solution)) if solution is not None else None
        faults = find_faults(submission, truth, protocol)
    if json:
        checked = {"submission": str(submission), "solution": None if solution is None else str(solution)}
        print_json({**checked, "valid": not faults, "faults": faults})
    else:
        for fault in faults:
            typer.echo(f"{submission}: {fault}")
        if not faults and truth:
            typer.echo(f"{submission}: no faults")
        elif not faults:
            typer.echo(
                f"{submission}: no faults in format, values and size; pass --solution to also check "
                "the clips, their numbers of frames and the version of the ground truth"
            )
    if faults:
        raise typer.Exit(SubmissionError.exit_code)
