"""``avsb doctor``."""

from __future__ import annotations

from typing import Any

import typer

from avsbench_harness.cli.common import JsonOption, print_json, print_rich


def doctor(json: JsonOption = False) -> None:
    """Show versions, devices, data, weights and methods on this machine, and problems with them.

    The exit code is 1 if a method cannot be loaded.

    \b
    Examples:
      avsb doctor
      avsb doctor --json
    """
    from avsbench_harness.method import methods

    entries = methods()
    broken = [entry for entry in entries.values() if entry.method is None]
    facts = _facts()
    facts["methods"] = {
        name: f"cannot be loaded: {entry.error}" if entry.method is None else f"from {entry.origin}"
        for name, entry in entries.items()
    }
    if json:
        print_json(facts)
    else:
        _show(facts)
        for entry in broken:
            typer.echo(f"\n{entry.traceback}", err=True)
    if broken:
        raise typer.Exit(1)


def _facts() -> dict[str, Any]:
    import os

    import torch

    from avsbench_harness.data.avsbench.tree import data_root, found_tasks
    from avsbench_harness.errors import MissingDataError
    from avsbench_harness.files import cache_dir
    from avsbench_harness.results.record import environment
    from avsbench_harness.weights import store

    root, no_data = None, "none; set AVSB_DATA_DIR or pass --data"
    try:
        root = data_root(None)
    except MissingDataError as error:
        no_data = str(error)
    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        **environment("cuda" if cuda else "cpu").model_dump(mode="json"),
        "cores": os.cpu_count(),
        "cuda": cuda or "none; runs use the CPU",
        "cache": str(cache_dir()),
        "data": no_data if root is None else str(root),
        "tasks": [task.name for task in found_tasks(root)] if root is not None else [],
        "weights": {entry.name: entry.sha256[:12] for entry in store.entries()}
        or "none; add VGGish and ImageNet weights with `avsb weights add`",
    }


def _show(facts: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False)
    for name, value in facts.items():
        if isinstance(value, dict):
            shown = "\n".join(f"{key}: {part}" for key, part in value.items())
        elif isinstance(value, list):
            shown = ", ".join(map(str, value))
        else:
            shown = str(value)
        table.add_row(Text(name), Text(shown))
    print_rich(table)
