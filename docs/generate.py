"""The generated pages of the documentation: commands, recipe keys, protocols and model cards."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

ROOT = Path(__file__).parents[1]


def write_reference(docs: Path) -> None:
    """Write ``reference/*.md`` and ``methods/*.md`` in the folder of the documents."""
    pages = {
        "reference/cli.md": cli_reference(),
        "reference/recipe.md": recipe_reference(),
        "reference/protocols.md": protocol_reference(),
        **{
            f"methods/{card.parent.name}.md": model_card(card)
            for card in sorted(ROOT.glob("methods/*/README.md"))
        },
    }
    for name, text in pages.items():
        path = docs / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def cli_reference() -> str:
    """One section per command: its help, its arguments and its options."""
    from avsbench_harness.cli import app

    parts = ["# Commands", "Generated from the help texts. Every command accepts `--help`."]
    parts += [_command(words, command) for words, command in commands(typer.main.get_command(app), ["avsb"])]
    return "\n\n".join(parts) + "\n"


def commands(command: Any, words: list[str]) -> Iterator[tuple[list[str], Any]]:
    """The leaves of a click command tree with their words, in the order of the help."""
    if not hasattr(command, "list_commands"):
        yield words, command
        return
    context = command.context_class(command, info_name=words[-1])
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        if not child.hidden:
            yield from commands(child, [*words, name])


def _command(words: list[str], command: Any) -> str:
    rows = []
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = parameter.name.upper()
        elif parameter.hidden or parameter.name == "help":
            continue
        else:
            name = ", ".join([*parameter.opts, *parameter.secondary_opts])
        default = parameter.default
        unset = default is None or default is False or default in ((), [], "") or callable(default)
        shown = "" if unset else f"`{default}`"
        rows.append(f"| `{name}` | {_cell(parameter.help or '')} | {shown} |")
    table = ["| argument or option | meaning | default |", "|---|---|---|", *rows] if rows else []
    return "\n\n".join([f"## {' '.join(words)}", _help(command.help or ""), "\n".join(table)]).rstrip()


def _help(text: str) -> str:
    """A help text as Markdown: its examples become a code block."""
    body, _, examples = inspect.cleandoc(text).replace("\b\n", "").partition("Examples:")
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    code = "\n".join(["```sh", *lines, "```"]) if lines else ""
    return "\n\n".join(part for part in (_escaped(body.strip()), code) if part)


def _escaped(text: str) -> str:
    """Plain text in Markdown; what is between backquotes stays."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([*_<\[\]|#$])", r"\\\1", part) for part in parts
    )


def _cell(text: str) -> str:
    return _escaped(" ".join(text.split()))


def recipe_reference() -> str:
    """A table of all recipe keys: type, default, meaning."""
    from avsbench_harness.recipe.schema import Recipe

    rows = list(_keys(Recipe, ""))
    head = [
        "# Recipe keys",
        "Generated from the schema. A recipe decides everything about a training. `--set KEY=VALUE` changes "
        "one key, and `--recipe FILE` reads a YAML file. `avsb methods NAME` prints the recipes of a method, "
        "and its model card the keys under `options`.",
        "| key | type | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows),
    ]
    return "\n\n".join(head) + "\n"


def _keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = _model_of(field.annotation)
        if inner is not None:
            yield from _keys(inner, f"{prefix}{name}.")
            continue
        meaning = _cell(field.description or "")
        yield f"| `{prefix}{name}` | {_cell(_type(field.annotation))} | {_default(field)} | {meaning} |"


def _model_of(annotation: Any) -> type[BaseModel] | None:
    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None


def _type(annotation: Any) -> str:
    """A type in words: choices as they are written, and the plain types."""
    if get_origin(annotation) is Literal:
        return " or ".join(map(str, get_args(annotation)))
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(_type(one) for one in get_args(annotation) if one is not type(None))
    if hasattr(annotation, "__metadata__"):  # Annotated
        return _type(get_args(annotation)[0])
    words = {int: "integer", float: "number", str: "text", bool: "true or false"}
    if get_origin(annotation) in (list, tuple):
        inner = [one for one in get_args(annotation) if one is not Ellipsis]
        return f"list of {_type(inner[0])}"
    return words.get(annotation, "mapping")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True)
    if value == "":
        return ""
    return "none" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def protocol_reference() -> str:
    """The definition of every protocol, from the docstrings of their classes."""
    from avsbench_harness.scoring.api import every_protocol

    parts = [
        "# Protocols",
        "Generated from the code. `avsb score FILE --protocol NAME` scores a submission by one of them; "
        "[metrics](../metrics.md) explains which number to use.",
    ]
    for heading, task in (("S4 and MS3", "s4"), ("AVSS", "avss")):
        parts.append(f"## {heading}")
        for protocol in every_protocol(task):
            definition = inspect.cleandoc(type(protocol).__doc__ or "")
            summary, _, rest = definition.partition(": ")
            parts += [f"### {summary} ({task})" if task == "avss" else f"### {summary}", _text(rest)]
    return "\n\n".join(parts) + "\n"


def _text(docstring: str) -> str:
    """A docstring as Markdown; its first letter is a capital."""
    return _escaped(docstring[:1].upper() + docstring[1:]).replace("``", "`")


def model_card(path: Path) -> str:
    """A model card; links to files of its folder, which are no pages, become their names."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"\]\(\.\./\.\./docs/", "](../", text)
    text = re.sub(r"\]\(\.\./(\w+)/README\.md", r"](\1.md", text)
    return re.sub(r"\[([^\]]+)\]\((?!https?://|#|\.\./|\w+\.md)[^)]*\)", r"`\1`", text)
