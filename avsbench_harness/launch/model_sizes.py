"""What a method's networks weigh, and how they are trained: counted on building them, never stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import yaml

from avsbench_harness.errors import AvsbError
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
        backbone: of its published ones.
        task: of its tasks.
        parameters: without the audio encoder; ``None`` where it cannot be built.
        with_vggish: the same with VGGish.
        error: why it cannot be built, else empty.
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
    """The recipe of one network: all of it, and what is not as in the method's first."""

    variant: str
    backbone: str
    task: str
    recipe: dict[str, Any]
    changes: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in JSON."""
        return asdict(self)


def sizes(method: Method) -> list[Size]:
    """The parameters of every network of a method: variants, then backbones, then tasks.

    The networks are built without memory for their tensors, with the options of the ``full`` recipe. One that
    cannot be built is listed with the reason.
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
    """A recipe without what every recipe has unless it says otherwise."""
    length = {name: recipe[name] for name in ("epochs", "iterations") if recipe[name] is not None}
    return difference(recipe, Recipe.parse(length, "a recipe's length").to_dict()) | length


def difference(values: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of ``values`` that ``base`` has not, or otherwise; mappings are compared key by key.

    A key that only ``base`` has is ``None``.
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
        parameters = _count(
            on_meta(lambda: method.build(get_task(task), backbone, variant=variant, **options))
        )
    except AvsbError as error:
        return Size(variant, backbone, task, None, None, str(error))
    return Size(variant, backbone, task, parameters, parameters + audio)


def _count(network: Any) -> int:
    """Parameters, shared ones once."""
    return sum(parameter.numel() for parameter in network.parameters())
