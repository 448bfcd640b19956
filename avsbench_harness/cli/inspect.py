"""``avsb inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avsbench_harness.cli.common import DataOption, JsonOption, print_json

app = typer.Typer(no_args_is_help=True, help="Look into a trained model.")


@app.callback()
def _inspect() -> None:
    """Look into a trained model."""


@app.command()
def tokens(
    run: Annotated[str, typer.Argument(help="A trained run: its folder, or its id under --out.")],
    split: Annotated[str, typer.Option("--split", help="test, val or train.")] = "test",
    projection: Annotated[
        str, typer.Option("--projection", help="pca, or tsne, which needs the extra 'inspect'.")
    ] = "pca",
    classes: Annotated[
        str | None, typer.Option("--classes", help="Only clips in which none but these sound: man,guitar.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="PNG to write; else one in the run's folder.")
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="The method's folder, if it is not installed.")
    ] = None,
    data: DataOption = None,
    out: Annotated[Path, typer.Option("--out", help="Folder that holds runs/.")] = Path(),
    json: JsonOption = False,
) -> None:
    """Draw the audio tokens of a split by class, single- and multi-source clips told apart.

    \b
    Examples:
      avsb inspect tokens RUN-ID --data AVSBench
      avsb inspect tokens runs/RUN-ID --projection tsne --classes man,guitar,piano --figure tokens.png
    """
    from avsbench_harness.analysis.token_plots import draw_tokens, place_tokens
    from avsbench_harness.analysis.tokens import audio_tokens
    from avsbench_harness.launch.open_run import open_run
    from avsbench_harness.tasks import get_split

    part = get_split(split)
    trained = open_run(run, out, data=data, method=method)
    wanted = [name.strip() for name in classes.split(",")] if classes else []
    points = place_tokens(audio_tokens(trained, part), projection, wanted)
    path = figure or trained.folder / f"tokens-{part}-{projection}.png"
    draw_tokens(points, f"{trained.id}, {part} ({projection})", path)
    if json:
        print_json(
            {
                "run": trained.id,
                "split": part,
                "projection": projection,
                "figure": str(path),
                "points": [point.to_json() for point in points],
            }
        )
    else:
        typer.echo(f"{len(points)} tokens: {path}")
