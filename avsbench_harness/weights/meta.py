"""Modules without memory for their tensors: names and shapes only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from avsbench_harness.errors import UsageError


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


class MetaValues(TorchDispatchMode):
    """Values where a network reads them from meta tensors.

    Every number is 1, every mask is full, and all tensors are equal.

    Attributes:
        largest: number of elements of the largest tensor so far.

    Args:
        limit: a larger tensor is a ``UsageError``.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.limit = limit
        self.largest = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        aten = torch.ops.aten
        if function is aten._local_scalar_dense.default and args[0].is_meta:
            return torch.ones((), dtype=args[0].dtype, device="cpu").item()
        if function is aten.equal.default and args[0].is_meta:
            return True
        if function is aten.nonzero.default and args[0].is_meta:
            return args[0].new_empty((args[0].numel(), args[0].dim()), dtype=torch.int64)
        if function is aten.index.Tensor and args[0].is_meta:
            args = (args[0], [index for given in args[1] for index in _positions(given)])
        result = function(*args, **(kwargs or {}))
        for one in result if isinstance(result, list | tuple) else (result,):
            if isinstance(one, Tensor):
                self.largest = max(self.largest, one.numel())
        if self.largest > self.limit:
            raise UsageError(
                f"The network needs a tensor of {self.largest * 4 >> 30:,} GiB for one clip; reduce the "
                "recipe's image_size or options."
            )
        return result


def _positions(index: Tensor | None) -> Iterator[Tensor | None]:
    """The positions that a meta tensor selects as an index; masks are full."""
    if index is None or index.dtype not in (torch.bool, torch.uint8):
        yield index
    else:
        yield from index.new_empty((index.dim(), index.numel()), dtype=torch.int64)
