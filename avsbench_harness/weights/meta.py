"""Modules without memory for their tensors: names and shapes only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch


class Movable(Protocol):
    """A module, as far as :func:`on_meta` uses it."""

    def to(self, device: str, /) -> Any:
        """Move the module to a device."""


Network = TypeVar("Network", bound=Movable)


def on_meta(build: Callable[[], Network]) -> Network:
    """Build a module on torch's meta device; the random generator keeps its state."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return build()
        except (NotImplementedError, RuntimeError):  # some networks read numbers while they are built
            network = build()
            network.to("meta")
            return network
