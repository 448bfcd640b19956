"""Modules without memory for their tensors: names and shapes only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch


class Movable(Protocol):
    """A module, as far as :func:`on_meta` uses it."""

    def to(self, device: str, /) -> Any:
        """Move the module to a device."""


#: In-place functions that fill a tensor or change every value of it alike.
_FILLING = {
    "add_", "clamp_", "constant_", "erfinv_", "exponential_", "fill_", "kaiming_normal_", "kaiming_uniform_",
    "mul_", "normal_", "ones_", "uniform_", "zero_", "zeros_",
}  # fmt: skip


class _WithoutFilling(torch.overrides.TorchFunctionMode):
    """Skips the initialisation of meta tensors: torch emulates it in Python, which takes seconds."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = [*args, *(kwargs or {}).values()]
        tensors = [one for one in given if isinstance(one, torch.Tensor)]
        if getattr(function, "__name__", "") in _FILLING and len(tensors) == 1 and tensors[0].is_meta:
            return tensors[0]
        return function(*args, **(kwargs or {}))


Network = TypeVar("Network", bound=Movable)


def on_meta(build: Callable[[], Network]) -> Network:
    """Build a module on torch's meta device; the random generator keeps its state."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"), _WithoutFilling():
                return build()
        except (NotImplementedError, RuntimeError):  # some networks read numbers while they are built
            network = build()
            network.to("meta")
            return network
