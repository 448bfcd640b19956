"""The command line ``avsb``: one module per command, which parses options, calls the library and prints.

Neither this module nor the modules that it imports may import torch, numpy or pandas at module level, so
that ``--help`` is fast.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated, NoReturn

import typer

from avsbench_harness import __version__
from avsbench_harness.cli import (
    ablate,
    bench,
    cache,
    challenge,
    compare,
    data,
    demo,
    doctor,
    export,
    hub,
    inspect,
    leaderboard,
    methods,
    plot,
    reproduce,
    results,
    robustness,
    run,
    runs,
    score,
    segment,
    submit,
    sweep,
    weights,
)
from avsbench_harness.cli.common import print_json
from avsbench_harness.distributed import PeerFailedError, hard_exit, should_report_error
from avsbench_harness.errors import AvsbError, Interrupted, os_error

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,  # rich would parse brackets in help texts as markup
    pretty_exceptions_enable=False,
    help=(
        "Train, score and rank audio-visual segmentation methods under common protocols.\n\n"
        "Exit codes: 0 done, 1 failed, 2 usage or input, 3 invalid submission, 4 missing data, "
        "130 interrupted, 143 terminated, 138 and 140 preempted (SIGUSR1, SIGUSR2)."
    ),
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"avsb {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of `avsb` itself."""


app.command()(demo.demo)
app.command()(run.run)
app.command()(run.train)
app.command()(run.predict)
app.command()(segment.segment)
app.command()(score.score)
app.command()(compare.compare)
app.command()(robustness.robustness)
app.command()(sweep.sweep)
app.command()(leaderboard.leaderboard)
app.command()(reproduce.reproduce)
app.command()(export.export)
app.command()(bench.bench)
app.command()(doctor.doctor)
app.add_typer(runs.app, name="runs")
app.add_typer(methods.app, name="methods")
app.add_typer(ablate.app, name="ablate")
app.add_typer(plot.app, name="plot")
app.add_typer(results.app, name="results")
app.add_typer(inspect.app, name="inspect")
app.add_typer(data.app, name="data")
app.add_typer(cache.app, name="cache")
app.add_typer(submit.app, name="submit")
app.add_typer(weights.app, name="weights")
app.add_typer(challenge.app, name="challenge")
app.add_typer(hub.app, name="hub")


def main() -> None:
    """Run the command line; print an :class:`AvsbError` or a file's ``OSError``, and exit with its code."""
    try:
        _main()
    except SystemExit as stop:
        hard_exit(stop.code)
        raise


def _main() -> None:
    from avsbench_harness.console import configure_logging

    _make_output_robust()
    configure_logging()
    as_json = "--json" in sys.argv
    try:
        code = app(standalone_mode=not as_json)
        sys.exit(code if isinstance(code, int) else 0)
    except AvsbError as error:
        _fail(error, as_json)
    except BrokenPipeError:
        # The pipe is closed; Python would raise again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        found = os_error(error)
        if found is None:
            raise
        _fail(found, as_json)
    except typer.Abort:
        _fail(Interrupted("The command was interrupted.", 130), as_json)
    except Exception as error:
        # A usage error of the command line, which typer prints itself unless JSON is requested.
        message, code = getattr(error, "format_message", None), getattr(error, "exit_code", None)
        if not (as_json and message is not None and isinstance(code, int)):
            raise
        print_json({"error": message(), "exit_code": code})
        sys.exit(code)


def _fail(error: AvsbError, as_json: bool) -> NoReturn:
    """Print an error as one sentence, or as JSON, and exit with its code."""
    if not isinstance(error, PeerFailedError) and should_report_error():
        if as_json:
            print_json({"error": str(error), "exit_code": error.exit_code})
        else:
            typer.echo(f"error: {error}", err=True)
    sys.exit(error.exit_code)


def _make_output_robust() -> None:
    """Escape characters that the terminal's encoding cannot show, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
