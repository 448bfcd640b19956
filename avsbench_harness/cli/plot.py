"""``avsb plot``: figures for papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avsbench_harness.cli.common import DataOption, JsonOption, SolutionOption, print_json

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Figures for papers, as PDF, PNG or SVG.")
OUT = typer.Option("--out", help="The figure's file; its suffix names the format: .pdf, .png or .svg.")
SUBMISSION = typer.Argument(help="Submissions, .npz.")


@app.command()
def thresholds(
    submissions: Annotated[list[Path], SUBMISSION],
    out: Annotated[Path, OUT],
    solution: SolutionOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """F over the 255 thresholds of one or several submissions to S4 or MS3.

    \b
    Examples:
      avsb plot thresholds submissions/example.npz --solution submissions/example-solution.npz --out curve.pdf
    """
    from avsbench_harness.launch.paper_plots import threshold_figure
    from avsbench_harness.results.plots import save

    save(threshold_figure(submissions, solution, data), out)
    _tell(out, json)


@app.command()
def ablation(
    name: Annotated[str, typer.Argument(help="method/table, as `avsb ablate list` has it.")],
    out: Annotated[Path, OUT],
    metric: Annotated[str | None, typer.Option("--metric", help="J, F or mIoU; else the task's.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="Where the records hold several.")] = None,
    backbone: Annotated[str | None, typer.Option("--backbone", help="Likewise.")] = None,
    results: Annotated[Path, typer.Option("--results", help="Folder with the records.")] = Path("results"),
    json: JsonOption = False,
) -> None:
    """Bars of an ablation table, with the intervals of the differences to the full method.

    \b
    Examples:
      avsb plot ablation combo/table5 --out table5.pdf
    """
    from avsbench_harness.launch.paper_plots import ablation_figure
    from avsbench_harness.results.plots import save

    save(ablation_figure(name, results, metric, task, backbone), out)
    _tell(out, json)


@app.command()
def clips(
    submissions: Annotated[list[Path], SUBMISSION],
    clip: Annotated[list[str], typer.Option("--clip", help="Id of a clip to show; may be repeated.")],
    out: Annotated[Path, OUT],
    solution: SolutionOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Frames of clips with the outlines of ground truth and predictions, a row per submission.

    \b
    Examples:
      avsb plot clips submissions/mine.npz --clip abc_1 --data AVSBench --out strip.png
    """
    from avsbench_harness.launch.paper_plots import clip_figure
    from avsbench_harness.results.plots import save

    save(clip_figure(submissions, clip, solution, data), out)
    _tell(out, json)


def _tell(out: Path, json: bool) -> None:
    if json:
        print_json({"figure": str(out)})
    else:
        typer.echo(f"figure: {out}")
