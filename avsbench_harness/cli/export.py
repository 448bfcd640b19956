"""``avsb export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avsbench_harness.cli.common import DataOption, JsonOption, print_json


def export(
    run: Annotated[
        str, typer.Argument(help="A trained run: its id in --out, a unique prefix of it, or its folder.")
    ],
    form: Annotated[str, typer.Option("--format", help="torch or onnx.")] = "torch",
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", help="File to write; defaults to model.pt2 or model.onnx in the run's folder."
        ),
    ] = None,
    data: DataOption = None,
    method: Annotated[
        str | None, typer.Option("--method", help="Folder of the method, if it is not installed.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder with runs/.")] = Path(),
    json: JsonOption = False,
) -> None:
    """Export a trained run through torch.export, and check it against the run's own prediction.

    The model takes one clip of full length at the recipe's image size; the JSON file beside it describes its
    inputs. A method that cannot be exported is an error with the reason.

    \b
    Examples:
      avsb export RUN-ID
      avsb export RUN-ID --format onnx --file model.onnx
    """
    from avsbench_harness.errors import unknown
    from avsbench_harness.launch.export_model import SUFFIXES, export_model
    from avsbench_harness.launch.open_run import open_run

    if form not in SUFFIXES:
        raise unknown("format", form, SUFFIXES)
    trained = open_run(run, out, data=data, method=method)
    path = file or trained.folder / f"model{SUFFIXES[form]}"
    exported = export_model(trained, form, path)
    if json:
        print_json(
            {
                "run": trained.id,
                "format": form,
                "file": str(exported.file),
                "description": str(exported.description),
                "inputs": exported.inputs,
                "difference": exported.difference,
            }
        )
        return
    typer.echo(f"model: {exported.file}")
    for name, shape in exported.inputs.items():
        typer.echo(f"input: {name} {tuple(shape)}")
    typer.echo(f"largest relative difference from the run's own prediction: {exported.difference:.2g}")
