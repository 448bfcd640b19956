"""Parameter counts and recipes of a method's networks, computed when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import yaml

from avsbench_harness.errors import AvsbError, plugin_errors
from avsbench_harness.method import Method
from avsbench_harness.nn.vggish import VGGish
from avsbench_harness.recipe.resolve import resolve
from avsbench_harness.recipe.schema import Recipe
from avsbench_harness.tasks import get_task
from avsbench_harness.weights.meta import on_meta


@dataclass(frozen=True)
class Size:
    """One network of a method.

    Attributes:
        variant: of the method.
        backbone: one of the method's published backbones.
        task: one of the method's tasks.
        parameters: number of parameters without the audio encoder; ``None`` if it cannot be built.
        with_vggish: number of parameters with VGGish.
        error: the reason why it cannot be built, else empty.
    """

    variant: str
    backbone: str
    task: str
    parameters: int | None
    with_vggish: int | None
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Training:
    """The recipe of one network, and its differences from the recipe of the method's first network."""

    variant: str
    backbone: str
    task: str
    recipe: dict[str, Any]
    changes: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in JSON."""
        return asdict(self)


def sizes(method: Method) -> list[Size]:
    """The parameter counts of every network of a method, by variant, backbone and task.

    The networks are built on the meta device with the options of the ``full`` recipe. One that cannot be
    built is listed with the reason.
    """
    audio = _count(on_meta(VGGish))
    return [_size(method, variant, backbone, task, audio) for variant, backbone, task in _networks(method)]


def trainings(method: Method) -> list[Training]:
    """The ``full`` recipes of every network of a method, in the order of :func:`sizes`."""
    found: list[Training] = []
    for variant, backbone, task in _networks(method):
        recipe = resolve(method, get_task(task), backbone, variant=variant).to_dict()
        changes = difference(recipe, found[0].recipe) if found else {}
        found.append(Training(variant, backbone, task, recipe, changes))
    return found


def as_yaml(values: Mapping[str, Any]) -> str:
    """Plain values as YAML, short mappings on one line."""
    return yaml.safe_dump(dict(values), sort_keys=False, width=100, default_flow_style=None).strip()


def set_values(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a recipe that differ from the defaults."""
    length = {name: recipe[name] for name in ("epochs", "iterations") if recipe[name] is not None}
    return difference(recipe, Recipe.parse(length, "a recipe's length").to_dict()) | length


def difference(values: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of ``values`` that differ from ``base``; mappings are compared recursively.

    A key that is only in ``base`` has the value ``None``.
    """
    found: dict[str, Any] = {}
    for key in (*values, *(key for key in base if key not in values)):
        new, old = values.get(key), base.get(key)
        if isinstance(new, Mapping) and isinstance(old, Mapping):
            inside = difference(new, old)
            if inside:
                found[key] = inside
        elif new != old or (key in values) != (key in base):
            found[key] = new
    return found


def _networks(method: Method) -> Iterator[tuple[str, str, str]]:
    yield from product(method.variants, method.backbones, method.tasks)


def _size(method: Method, variant: str, backbone: str, task: str, audio: int) -> Size:
    try:
        options = resolve(method, get_task(task), backbone, variant=variant).options
        with plugin_errors(f"{method.name} cannot build its network for {task} with {backbone}"):
            network = on_meta(lambda: method.build(get_task(task), backbone, variant=variant, **options))
            parameters = _count(network)
    except AvsbError as error:
        return Size(variant, backbone, task, None, None, str(error))
    return Size(variant, backbone, task, parameters, parameters + audio)


def _count(network: Any) -> int:
    """Number of parameters; shared ones are counted once."""
    return sum(parameter.numel() for parameter in network.parameters())
