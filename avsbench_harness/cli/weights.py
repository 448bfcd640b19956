"""``avsb weights add`` and ``avsb weights list``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from avsbench_harness.cli.common import JsonOption, print_json, print_rich

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Pretrained weights of encoders, kept by their hash."
)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="vggish, or a backbone: r50, pvt, swin_t, a timm name.")],
    file: Annotated[Path, typer.Argument(help="The published weights, .pth or .safetensors.")],
    json: JsonOption = False,
) -> None:
    """Check a weights file and copy it into the cache.

    \b
    Examples:
      avsb weights add vggish vggish-10086976.pth
      avsb weights add r50 resnet50-0676ba61.pth
    """
    from avsbench_harness.nn import weights

    entry = weights.add(name, file)
    if json:
        print_json(asdict(entry))
    else:
        typer.echo(f"{entry.name}: {entry.path} (SHA-256 {entry.sha256[:12]})")


@app.command(name="list")
def list_(json: JsonOption = False) -> None:
    """Show the weights in the cache.

    \b
    Examples:
      avsb weights list
    """
    from avsbench_harness.nn import weights

    entries = weights.entries()
    if json:
        print_json([asdict(entry) for entry in entries])
        return
    if not entries:
        typer.echo("No weights in the cache; `avsb weights add NAME FILE` adds some.")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("name", "file", "SHA-256", "MiB", "added")
    for entry in entries:
        table.add_row(
            Text(entry.name), Text(entry.file), entry.sha256[:12], f"{entry.size / 2**20:.1f}", entry.added
        )
    print_rich(table)
