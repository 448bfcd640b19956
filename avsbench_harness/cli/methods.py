"""``avsb methods``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from avsbench_harness.cli.common import JsonOption, print_json, print_rich

if TYPE_CHECKING:
    from avsbench_harness.launch.model_sizes import Size, Training
    from avsbench_harness.method import Entry


class _MethodsGroup(TyperGroup):
    """``avsb methods [NAME]`` is ``avsb methods show [NAME]``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert ``show`` unless a command or help is given."""
        first = next((argument for argument in args if not argument.startswith("-")), None)
        if first not in self.commands and "--help" not in args:
            args = ["show", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_MethodsGroup,
    rich_markup_mode=None,
    help=(
        "List the methods, print one (`avsb methods NAME`), or create one.\n\n\b\nExamples:\n"
        "  avsb methods\n  avsb methods avsegformer\n  avsb methods new my_method"
    ),
)


@app.command()
def show(
    name: Annotated[
        str | None, typer.Argument(help="Print the model card, parameters and recipes of this method.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the methods, or print one method's model card, parameters and recipes.

    \b
    Examples:
      avsb methods show
      avsb methods show avsegformer
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
    from avsbench_harness.launch.model_sizes import sizes, trainings

    counted, recipes = sizes(method), trainings(method)
    if json:
        print_json(
            {
                "name": method.name,
                "card": method.card(),
                "sizes": [size.to_dict() for size in counted],
                "recipes": [training.to_dict() for training in recipes],
            }
        )
        return
    from rich.markdown import Markdown

    from avsbench_harness.errors import printable

    print_rich(Markdown(printable(method.card())))
    _show_sizes(counted)
    _show_recipes(recipes)


@app.command()
def new(
    name: Annotated[
        str, typer.Argument(help="Name of the method: lower-case letters, digits and underscores.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder in which its folder is created.")] = Path(),
    json: JsonOption = False,
) -> None:
    """Create the folder of a new method: a small working network with recipes, model card and test.

    \b
    Examples:
      avsb methods new my_method
      avsb run --method ./my_method --backbone r50
    """
    from avsbench_harness.launch.new_method import new_method

    files = new_method(name, out)
    if json:
        print_json({"folder": str(out / name), "files": [str(file) for file in files]})
        return
    for file in files:
        typer.echo(str(file))
    folder = out / name if out.is_absolute() else f"./{out / name}"
    typer.echo(f"Next: avsb run --method {folder} --backbone r50; pytest {out / name}")


def _show_sizes(counted: list[Size]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Parameters, millions")
    for heading in ("variant", "backbone", "task"):
        table.add_column(heading)
    table.add_column("without VGGish", justify="right")
    table.add_column("with VGGish", justify="right")
    for size in counted:
        numbers = [
            size.error if number is None else f"{number / 1e6:.1f}"
            for number in (size.parameters, size.with_vggish)
        ]
        table.add_row(*map(Text, (size.variant, size.backbone, size.task, *numbers)))
    print_rich(table)


def _show_recipes(recipes: list[Training]) -> None:
    from rich.text import Text

    from avsbench_harness.launch.model_sizes import as_yaml, set_values

    first, *others = recipes
    print_rich(Text(f"\nRecipe full: {_named(first)}\n{as_yaml(set_values(first.recipe))}"))
    for training in others:
        changes = as_yaml(training.changes) if training.changes else "the same"
        print_rich(Text(f"\n{_named(training)}, differences from the first\n{changes}"))


def _named(training: Training) -> str:
    return f"{training.variant}, {training.backbone}, {training.task}"


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
