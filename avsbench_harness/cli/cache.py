"""``avsb cache info`` and ``clear``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from avsbench_harness.cli.common import JsonOption, print_json, print_rich

if TYPE_CHECKING:
    from collections.abc import Sequence

    from avsbench_harness.data.cache.eviction import Collection

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Decoded clips, audio and solutions on disk."
)

KindArgument = Annotated[
    str | None, typer.Argument(help="decoded, log-mels, embeddings or solutions; default: all of them.")
]


@app.command()
def info(json: JsonOption = False) -> None:
    """List the cached collections, the least recently used first.

    The environment variable AVSB_CACHE_LIMIT limits their total size, in GB (default: 100). The least
    recently used collections are removed to make room for new ones, except those that a running process
    uses. AVSB_CACHE_DIR sets the folder.

    \b
    Examples:
      avsb cache info
      avsb cache info --json
    """
    from avsbench_harness.data.cache.eviction import collections, size_limit
    from avsbench_harness.files import cache_dir

    found, limit = collections(), size_limit()
    used = sum(collection.size for collection in found)
    if json:
        listed = [collection.to_json() for collection in found]
        print_json({"folder": str(cache_dir()), "bytes": used, "limit_bytes": limit, "collections": listed})
        return
    _show(found)
    typer.echo(f"{used / 1e9:.2f} of at most {limit / 1e9:g} GB used in {cache_dir()}")


@app.command()
def clear(kind: KindArgument = None, json: JsonOption = False) -> None:
    """Remove cached collections; those that a running process uses are kept and listed.

    Everything that is removed is computed again when it is needed. Weights, maskiges, pseudo-masks and
    synthetic data in the cache folder are not removed.

    \b
    Examples:
      avsb cache clear
      avsb cache clear decoded
    """
    from avsbench_harness.data.cache import eviction

    removed, kept = eviction.clear(kind)
    freed = sum(collection.size for collection in removed)
    if json:
        print_json(
            {
                "freed_bytes": freed,
                "removed": [collection.to_json() for collection in removed],
                "in_use": [collection.to_json() for collection in kept],
            }
        )
        return
    for collection in kept:
        typer.echo(f"{collection.folder} is in use and was kept; end the process that uses it and try again.")
    typer.echo(f"collections removed: {len(removed)}; freed: {freed / 1e6:,.1f} MB")


def _show(found: Sequence[Collection]) -> None:
    from rich.table import Table

    table = Table("Kind", "Name", "Last use (UTC)", "In use")
    for name in ("Entries", "MB"):
        table.add_column(name, justify="right")
    for collection in found:
        table.add_row(
            collection.kind,
            collection.folder.name,
            f"{collection.last_used:%Y-%m-%d %H:%M}",
            "yes" if collection.in_use else "no",
            f"{collection.entries:,}",
            f"{collection.size / 1e6:,.1f}",
        )
    print_rich(table)
