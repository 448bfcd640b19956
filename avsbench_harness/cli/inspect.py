"""``avsb inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avsbench_harness.cli.common import DataOption, JsonOption, print_json

app = typer.Typer(no_args_is_help=True, help="Inspect a trained model.")


@app.callback()
def _inspect() -> None:
    """Inspect a trained model."""


@app.command()
def tokens(
    run: Annotated[str, typer.Argument(help="Folder of a trained run, or its id in --out.")],
    split: Annotated[str, typer.Option("--split", help="test, val or train.")] = "test",
    projection: Annotated[
        str, typer.Option("--projection", help="pca, or tsne (needs the extra 'inspect').")
    ] = "pca",
    classes: Annotated[
        str | None, typer.Option("--classes", help="Use only clips of these classes, such as man,guitar.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", help="File to write (.png, .pdf, .svg); defaults to a PNG in the run's folder."
        ),
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="Folder of the method, if it is not installed.")
    ] = None,
    data: DataOption = None,
    out: Annotated[Path, typer.Option("--out", help="Folder with runs/.")] = Path(),
    json: JsonOption = False,
) -> None:
    """Plot the audio tokens of a split by class, with markers for single- and multi-source clips.

    \b
    Examples:
      avsb inspect tokens RUN-ID --data AVSBench
      avsb inspect tokens runs/RUN-ID --projection tsne --classes man,guitar,piano --plot tokens.png
    """
    from avsbench_harness.analysis.plots import save, token_scatter
    from avsbench_harness.analysis.token_projection import project_tokens
    from avsbench_harness.analysis.tokens import audio_tokens
    from avsbench_harness.launch.open_run import open_run
    from avsbench_harness.tasks import get_split

    part = get_split(split)
    trained = open_run(run, out, data=data, method=method)
    wanted = [name.strip() for name in classes.split(",")] if classes else []
    points = project_tokens(audio_tokens(trained, part), projection, wanted)
    path = plot or trained.folder / f"tokens-{part}-{projection}.png"
    save(token_scatter(points, f"{trained.id}, {part} ({projection})"), path, dots_per_inch=150)
    if json:
        print_json(
            {
                "run": trained.id,
                "split": part,
                "projection": projection,
                "plot": str(path),
                "points": [point.to_json() for point in points],
            }
        )
    else:
        typer.echo(f"{len(points)} tokens: {path}")
