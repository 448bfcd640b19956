"""``avsb methods``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from avsbench_harness.cli.common import JsonOption, print_json, print_rich

if TYPE_CHECKING:
    from avsbench_harness.method import Entry


def methods(
    name: Annotated[str | None, typer.Argument(help="Print this method's model card.")] = None,
    json: JsonOption = False,
) -> None:
    """List the methods, or print one method's model card.

    \b
    Examples:
      avsb methods
      avsb methods avsegformer
    """
    from avsbench_harness.method import get_method
    from avsbench_harness.method import methods as installed

    if name is None:
        entries = installed()
        if json:
            print_json([_entry_json(entry) for entry in entries.values()])
        else:
            _show_entries(entries)
        return
    method = get_method(name)
    if json:
        print_json({"name": method.name, "card": method.card()})
        return
    from rich.markdown import Markdown

    print_rich(Markdown(method.card()))


def _entry_json(entry: Entry) -> dict[str, Any]:
    method = entry.method
    if method is None:
        return {"name": entry.name, "origin": entry.origin, "error": entry.error}
    return {
        "name": entry.name,
        "aliases": list(method.aliases),
        "paper": method.paper,
        "url": method.url,
        "variants": list(method.variants),
        "tasks": list(method.tasks),
        "backbones": list(method.backbones),
        "origin": entry.origin,
    }


def _show_entries(entries: dict[str, Entry]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for heading in ("method", "variants", "tasks", "backbones", "paper"):
        table.add_column(heading)
    for entry in entries.values():
        method = entry.method
        if method is None:
            table.add_row(Text(entry.name), "", "", "", Text(f"cannot be loaded: {entry.error}"))
            continue
        names = ", ".join((entry.name, *method.aliases))
        facts = (method.variants, method.tasks, method.backbones)
        table.add_row(Text(names), *(Text(", ".join(fact)) for fact in facts), Text(method.paper))
    print_rich(table)
