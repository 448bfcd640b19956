"""Presets, overrides and the resolution of a recipe.

A method's ``recipes.yaml`` holds presets (``full``, ``smoke``); each has a ``base``, and overrides per task,
per backbone, per backbone within a task, and per variant, applied in this order; a variant's have the same
structure. A user's file and ``--set key=value`` come last.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from avsbench_harness.errors import UsageError, one_line, unknown
from avsbench_harness.recipe.options import BuildOptions
from avsbench_harness.recipe.schema import Recipe
from avsbench_harness.recipe.yaml_reader import MAX_DEPTH, parse_yaml, read_yaml
from avsbench_harness.tasks import Task


class PresetOwner(Protocol):
    """A method, as far as its presets are concerned."""

    @property
    def name(self) -> str:
        """The method's name, for messages."""

    def default_variant(self, task: str) -> str:
        """Return the variant that is built for a task unless another is asked for."""

    @property
    def folder(self) -> Path:
        """The folder with ``recipes.yaml``."""

    @property
    def options(self) -> type[BuildOptions]:
        """The method's build options."""


def presets(method: PresetOwner) -> tuple[str, ...]:
    """The names of a method's presets."""
    return tuple(_presets(method.folder / "recipes.yaml"))


def resolve(
    method: PresetOwner,
    task: Task,
    backbone: str,
    *,
    variant: str | None = None,
    preset: str = "full",
    recorded: Mapping[str, Any] | None = None,
    file: Path | None = None,
    assignments: Sequence[str] = (),
) -> Recipe:
    """The recipe of one run.

    Args:
        method: the method.
        task: selects the overrides under ``tasks``.
        backbone: selects the overrides under ``backbones``.
        variant: selects those under ``variants``; ``None``: the task's default.
        preset: ``full``, ``smoke`` or another of the method's.
        recorded: the recipe of a run, which replaces the values of the preset.
        file: YAML with overrides of the preset.
        assignments: further overrides ``key.sub=value``, the value parsed as YAML.

    Options of the preset that have no effect with the variant and the overrides are left out.
    """
    path = method.folder / "recipes.yaml"
    known = _presets(path)
    if preset not in known:
        raise unknown(f"preset of {method.name}", preset, known)
    variant = variant or method.default_variant(task.name)
    own = known[preset].get("variants", {}).get(variant, {})
    values: dict[str, Any] = {}
    for layers in (known[preset], own):
        of_task = dict(layers.get("tasks", {}).get(task.name, {}))
        of_both = of_task.pop("backbones", {}).get(backbone, {})
        of_backbone = layers.get("backbones", {}).get(backbone, {})
        for layer in (layers.get("base", {}), of_task, of_backbone, of_both):
            values = _override(values, layer)
    where = f"preset '{preset}' of {path.name} of {method.name}"
    if recorded is not None:
        values, where = dict(recorded), "the run's recipe"
    recipe = Recipe.parse(values, where)
    of_preset = recipe.options
    if file is not None:
        values = _override(values, read_yaml(file))
        recipe = Recipe.parse(values, str(file))
    for assignment in assignments:
        values = _override(values, _assignment(assignment))
        recipe = Recipe.parse(values, f"--set {one_line(assignment, 100)}")
    unused = method.options.without_effect(recipe.options, task, variant)
    if not unused:
        return recipe
    return recipe.model_copy(update={"options": _without_unused(recipe.options, of_preset, unused)})


def _without_unused(
    options: Mapping[str, Any], of_preset: Mapping[str, Any], unused: Sequence[str]
) -> dict[str, Any]:
    """Return the options without those of the preset that the others make ineffective.

    A changed option is an error if it has no effect, which building the network reports.
    """
    return {
        name: value
        for name, value in options.items()
        if name not in unused or name not in of_preset or value != of_preset[name]
    }


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the overrides ``over``; mappings are merged, other values replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


#: Mutually exclusive keys: (mapping, key, keys that it replaces).
_EXCLUSIVE = (
    ("", "epochs", ("iterations",)),
    ("", "iterations", ("epochs",)),
    ("validation", "every_steps", ("every", "first")),
    ("validation", "every", ("every_steps",)),
    ("validation", "first", ("every_steps",)),
)


def _override(values: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge overrides; an override of one of two exclusive keys removes the other."""
    for place, one, others in _EXCLUSIVE:
        below, above = (layer.get(place, {}) if place else layer for layer in (values, over))
        if not (isinstance(below, Mapping) and isinstance(above, Mapping)) or above.get(one) is None:
            continue
        kept = {key: value for key, value in below.items() if key not in others or key in above}
        values = {**values, place: kept} if place else kept
    return merge(values, over)


def assignments(changes: Mapping[str, Any]) -> tuple[str, ...]:
    """Overrides as arguments of ``--set``; a JSON value is also valid YAML."""
    return tuple(f"{key}={json.dumps(value)}" for key, value in changes.items())


def split_assignment(text: str) -> tuple[str, Any]:
    """Split ``key.sub=value``, and parse the value as YAML; anything else is a ``UsageError``."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set takes key=value, for example --set optimizer.lr=1.0e-4; got '{text}'.")
    if not 0 < key.count(".") + 1 <= MAX_DEPTH or not all(part.strip() for part in key.split(".")):
        raise UsageError(f"'{one_line(key, 100)}' in --set is not a key such as optimizer.lr.")
    try:
        return key.strip(), parse_yaml(value)
    except ValueError as error:
        raise UsageError(f"The value in '--set {one_line(text, 100)}' is not valid YAML: {error}.") from None


def _assignment(text: str) -> dict[str, Any]:
    key, parsed = split_assignment(text)
    for part in reversed(key.split(".")):
        parsed = {part: parsed}
    assert isinstance(parsed, dict)
    return parsed


@functools.cache
def _presets(path: Path) -> dict[str, dict[str, Any]]:
    known = read_yaml(path)
    if not known:
        raise UsageError(f"{path} has no preset.")
    for name, layers in known.items():
        _check_layers(layers, f"Preset '{name}' of {path}", ("base", "tasks", "backbones", "variants"))
    return known


def _check_layers(layers: Any, where: str, known: Sequence[str]) -> None:
    """Check that a preset, or the overrides of a task or variant in it, is made of nested mappings.

    Args:
        layers: values from YAML.
        where: their place, for messages.
        known: the keys that it may have.
    """
    extra = set(_mapping(layers, where)) - set(known)
    if extra:
        raise UsageError(f"{where} has '{min(extra)}' beside {', '.join(known[:-1])} and {known[-1]}.")
    for key, value in layers.items():
        inside = _mapping(value, f"'{key}' of {where}")
        for name, values in inside.items() if key != "base" else ():
            place = f"'{key}.{name}' of {where}"
            _mapping(values, place)
            if key == "variants":
                _check_layers(values, place, ("base", "tasks", "backbones"))
            elif key == "tasks" and "backbones" in values:
                for backbone, own in _mapping(values["backbones"], f"'backbones' of {place}").items():
                    _mapping(own, f"'backbones.{backbone}' of {place}")


def _mapping(value: Any, where: str) -> dict[str, Any]:
    """Return ``value`` if it is a mapping, else raise a ``UsageError``."""
    if isinstance(value, dict):
        return value
    problem = "is empty; remove it or add keys" if value is None else f"must be a mapping, not {value!r:.50}"
    raise UsageError(f"{where} {problem}.")
