"""``avsb plot``: plots for papers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avsbench_harness.cli.common import DataOption, JsonOption, SolutionOption, print_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Plots for papers, as PDF, PNG or SVG.")
OUT = typer.Option("--out", help="File to write; the suffix selects the format: .pdf, .png or .svg.")
SUBMISSION = typer.Argument(help="Submissions (.npz), or runs: ids, prefixes of ids or folders.")


@app.command()
def thresholds(
    submissions: Annotated[list[str], SUBMISSION],
    out: Annotated[Path, OUT],
    solution: SolutionOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Plot F over the 255 thresholds for one or several submissions to S4 or MS3.

    \b
    Examples:
      avsb plot thresholds submissions/example.npz --solution submissions/example-solution.npz --out curve.pdf
    """
    from avsbench_harness.launch.paper_plots import threshold_plot
    from avsbench_harness.launch.run_files import find_submission

    _save(threshold_plot([find_submission(one) for one in submissions], solution, data), out, json)


@app.command()
def ablation(
    name: Annotated[str, typer.Argument(help="Name of the table; see `avsb ablate list`.")],
    out: Annotated[Path, OUT],
    metric: Annotated[
        str | None,
        typer.Option("--metric", help="J, F or mIoU; defaults to J, or mIoU for avss."),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="Task, needed if there are records of several tasks.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option("--backbone", help="Backbone, needed if there are records of several backbones."),
    ] = None,
    results: Annotated[Path, typer.Option("--results", help="Folder with the records.")] = Path("results"),
    json: JsonOption = False,
) -> None:
    """Plot an ablation table as bars, with the intervals of the differences to the full method.

    \b
    Examples:
      avsb plot ablation combo/table5 --out table5.pdf
    """
    from avsbench_harness.launch.paper_plots import ablation_plot

    _save(ablation_plot(name, results, metric, task, backbone), out, json)


@app.command()
def clips(
    submissions: Annotated[list[str], SUBMISSION],
    clip: Annotated[list[str], typer.Option("--clip", help="Id of a clip; may be repeated.")],
    out: Annotated[Path, OUT],
    solution: SolutionOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Plot frames of clips with the outlines of ground truth and predictions, one row per submission.

    \b
    Examples:
      avsb plot clips submissions/mine.npz --clip abc_1 --data AVSBench --out strip.png
    """
    from avsbench_harness.launch.paper_plots import clip_plot
    from avsbench_harness.launch.run_files import find_submission

    _save(clip_plot([find_submission(one) for one in submissions], clip, solution, data), out, json)


@app.command()
def curves(
    run: Annotated[Path, typer.Argument(help="Folder of a run, as runs/RUN-ID.")],
    out: Annotated[Path, OUT],
    json: JsonOption = False,
) -> None:
    """Plot loss and validation metric of a training.

    \b
    Examples:
      avsb plot curves runs/RUN-ID --out curves.pdf
    """
    from avsbench_harness.launch.paper_plots import curve_plot

    _save(curve_plot(run), out, json)


@app.command()
def robustness(
    out: Annotated[Path, OUT],
    metric: Annotated[
        str | None, typer.Option("--metric", help="J, F or mIoU; defaults to J, or mIoU for avss.")
    ] = None,
    results: Annotated[Path, typer.Option("--results", help="Folder with the records.")] = Path("results"),
    json: JsonOption = False,
) -> None:
    """Plot a metric of all runs with a robustness record, by audio condition.

    \b
    Examples:
      avsb plot robustness --out robustness.pdf
    """
    from avsbench_harness.launch.paper_plots import robustness_plot

    _save(robustness_plot(results, metric), out, json)


def _save(figure: Figure, out: Path, json: bool) -> None:
    """Write a plot and print its path."""
    from avsbench_harness.analysis.plots import save

    save(figure, out)
    if json:
        print_json({"plot": str(out)})
    else:
        typer.echo(f"plot: {out}")
