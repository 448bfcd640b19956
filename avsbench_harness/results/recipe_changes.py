"""Differences between a record's recipe and the preset that it names."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from avsbench_harness.errors import PLUGIN_ERRORS, AvsbError, one_line
from avsbench_harness.method import Method, get_method, methods
from avsbench_harness.recipe.resolve import resolve
from avsbench_harness.recipe.schema import Recipe
from avsbench_harness.results.record import Record
from avsbench_harness.tasks import get_task

_ABSENT = object()

#: Number of changes that a label shows.
_SHOWN = 3


def recipe_changes(record: Record, method: Method | None = None) -> dict[str, Any] | None:
    """The values of a record's recipe that differ from its preset, by dotted key.

    Args:
        record: the record.
        method: its method; ``None`` for the installed method of that name.

    Returns:
        ``None`` if the preset is not available: there is no spec, or the method is not installed.
    """
    return None if record.spec is None else spec_changes(record.spec, method)


def spec_changes(spec: Mapping[str, Any], method: Method | None = None) -> dict[str, Any] | None:
    """The values of a run's recipe that differ from its preset, by dotted key.

    Args:
        spec: of the run, JSON values.
        method: its method; ``None`` for the installed method of that name.

    Returns:
        ``None`` if the preset is not available.
    """
    try:
        method = method or _installed(spec["method"])
        preset = _preset(method, spec["task"], spec["backbone"], spec["variant"], spec["preset"])
    except (AvsbError, TypeError, KeyError):
        return None
    recipe = _complete(spec["recipe"])
    ignored = {"source"}
    if spec.get("weights") or spec.get("init"):  # they replace the backbone weights
        ignored.add("backbone.pretrained")
    if recipe.get("maskige") is None and not _uses_maskiges(method, recipe):
        ignored.add("maskige")
    return {key: value for key, value in _differences(preset, recipe) if key not in ignored}


def recipe_label(record: Record, method: Method | None = None) -> str:
    """The preset of a record, and the changes to it: ``full (changed: optimizer.lr=0.02)``."""
    preset = record.preset or "submitted"
    changes = recipe_changes(record, method)
    if changes is None:
        return preset if record.spec is None else f"{preset} (preset not available here)"
    if not changes:
        return preset
    shown = [change_text(key, value) for key, value in list(changes.items())[:_SHOWN]]
    more = [f"and {len(changes) - _SHOWN} more"] if len(changes) > _SHOWN else []
    return f"{preset} (changed: {', '.join([*shown, *more])})"


def change_text(key: str, value: object) -> str:
    """One change as ``key=value``; a key that the recipe lacks has the value ``removed``."""
    return one_line(f"{key}={'removed' if value is _ABSENT else value}", 80)


@functools.cache
def _installed(name: str) -> Method:
    """An installed method; a record never selects a folder."""
    if name not in methods():
        raise AvsbError(f"The method {name!r} is not installed.")
    return get_method(name)


@functools.cache
def _preset(method: Method, task: str, backbone: str, variant: str, preset: str) -> dict[str, Any]:
    return resolve(method, get_task(task), backbone, variant=variant, preset=preset).to_dict()


def _complete(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recorded recipe with the defaults of keys that are newer than the record, if it is still valid."""
    try:
        return Recipe.parse(recipe, "a record").to_dict()
    except AvsbError:
        return recipe


def _uses_maskiges(method: Method, recipe: Mapping[str, Any]) -> bool:
    options = recipe.get("options")
    try:
        return method.uses_maskiges(options if isinstance(options, dict) else {})
    except PLUGIN_ERRORS:
        return True


def _differences(old: object, new: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The changed values by dotted key; a list is one value."""
    if old == new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            name = f"{prefix}.{key}" if prefix else str(key)
            yield from _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), name)
    elif _plain(old) != _plain(new):
        yield prefix, new


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
