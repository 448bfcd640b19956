"""``avsb weights add``, ``import`` and ``list``."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from avsbench_harness.cli.common import JsonOption, TaskOption, print_json, print_rich

EmaOption = Annotated[
    bool,
    typer.Option("--ema", help="Load the exponential moving average of the weights instead of the raw ones."),
]

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Manage encoders' and published weights.",
)


@app.command()
def add(
    name: Annotated[
        str, typer.Argument(help="vggish, compact, or a backbone: r50, pvt, swin_t, a timm name.")
    ],
    file: Annotated[Path, typer.Argument(help="Published weights, .pth or .safetensors.")],
    ema: EmaOption = False,
    custom: Annotated[
        bool, typer.Option("--custom", help="Accept weights other than those that the name stands for.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Check a weights file and copy it into the cache.

    \b
    Examples:
      avsb weights add vggish vggish-10086976.pth
      avsb weights add r50 resnet50-19c8e357.pth
    """
    from avsbench_harness.nn.pretrained import add_weights

    entry = add_weights(name, file, ema=ema, custom=custom)
    if json:
        print_json(asdict(entry))
    else:
        typer.echo(f"{entry.name}: {entry.path} (SHA-256 {entry.sha256[:12]})")


@app.command(name="import")
def import_(
    method: Annotated[str, typer.Argument(help="Name, alias or folder of the method.")],
    file: Annotated[Path, typer.Argument(help="The weights that its authors published.")],
    task: TaskOption,
    backbone: Annotated[str, typer.Option("--backbone", help="r50, pvt, swin_t or a timm name.")],
    variant: Annotated[
        str | None, typer.Option("--variant", help="Variant of the method; defaults to its first.")
    ] = None,
    ema: EmaOption = False,
    json: JsonOption = False,
) -> None:
    """Check weights that a method's authors published, and store them under the names of this harness.

    Reads PyTorch files, safetensors and detectron2's pickles. Nothing in the file is executed.

    \b
    Examples:
      avsb weights import combo model_best.pth --task s4 --backbone pvt
      avsb run --method combo --backbone pvt --weights combo-released-s4-pvt
    """
    from avsbench_harness.launch.import_weights import import_weights

    found = import_weights(method, file, task=task, backbone=backbone, variant=variant, ema=ema)
    entry = found.entry
    if json:
        print_json({**asdict(entry), "missing": [], "unused": list(found.unused)})
        return
    typer.echo(f"{entry.name}: {entry.path} (SHA-256 of {entry.file} {entry.source_sha256[:12]})")
    typer.echo(_unused(found.unused))
    typer.echo(f"use it with --weights {entry.name}")


def _unused(names: tuple[str, ...]) -> str:
    """The entries of a file that the network does not use, counted by the first part of their names."""
    if not names:
        return "no entry is missing, none is unused"
    counts = Counter(name.removeprefix("module.").split(".")[0] for name in names)
    parts = ", ".join(f"{part} {count}" for part, count in sorted(counts.items()))
    return f"no entry is missing; {len(names)} of the file are unused ({parts})"


@app.command(name="list")
def list_(json: JsonOption = False) -> None:
    """List the weights in the cache and in installed packages: of encoders by name, of methods by id.

    \b
    Examples:
      avsb weights list
    """
    from avsbench_harness.weights import packaged, store

    entries = store.entries()
    stored = {entry.name for entry in entries}  # they take precedence over those of packages
    packages = {name: path for name, path in packaged.installed().items() if name not in stored}
    if json:
        of_packages = [
            {
                "name": name,
                "sha256": packaged.PACKAGED[name].sha256,
                "file": path.name,
                "size": path.stat().st_size,
                "package": packaged.PACKAGED[name].package,
            }
            for name, path in packages.items()
        ]
        print_json([*map(asdict, entries), *of_packages])
        return
    from rich.table import Column, Table
    from rich.text import Text

    # Other commands take these names, so long ones are wrapped, not cut.
    table = Table(Column("name", overflow="fold"), "file", "SHA-256", "MiB", "added")
    for entry in entries:
        digest = entry.source_sha256 if isinstance(entry, store.Published) else entry.sha256
        file = f"{entry.file} (EMA)" if entry.ema else entry.file
        table.add_row(Text(entry.name), Text(file), digest[:12], f"{entry.size / 2**20:.1f}", entry.added)
    for name, path in packages.items():
        weights, size = packaged.PACKAGED[name], f"{path.stat().st_size / 2**20:.1f}"
        table.add_row(Text(name), Text(path.name), weights.sha256[:12], size, "with a package")
    print_rich(table)
