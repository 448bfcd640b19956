"""Gradients and updates of a network's modules in single optimiser steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

#: Update-to-weight ratios of a weight matrix that trains, per step: below, it hardly changes within a run;
#: above, it is replaced within some hundred steps.
LOWEST_RATIO, HIGHEST_RATIO = 1e-4, 1e-2

#: Number of parameters that a warning names.
NAMED = 3


@dataclass(frozen=True)
class ModuleStep:
    """One module in one optimiser step.

    Attributes:
        gradient_norm: L2 norm of the gradients of all parameters, before clipping.
        share: of the squared norm of the gradients of all modules; 0 if that is 0.
        weight_norm: L2 norm of the weight matrices (parameters of two or more dimensions) before the step.
        update_ratio: norm of the change of the weight matrices relative to ``weight_norm``; ``None`` for
            modules without matrices, or whose matrices are zero.
        idle: names of trainable parameters without a gradient, or with a gradient of 0.
    """

    gradient_norm: float
    share: float
    weight_norm: float
    update_ratio: float | None
    idle: tuple[str, ...]

    def out_of_range(self) -> bool:
        """Whether the update ratio is outside of the usual range."""
        return self.update_ratio is not None and not LOWEST_RATIO <= self.update_ratio <= HIGHEST_RATIO


@dataclass(frozen=True)
class ModuleUpdates:
    """The observed steps of one module.

    Attributes:
        name: path of the module.
        parameters: number of its parameters.
        frozen: whether none of them was trainable in any observed step.
        steps: step, counted from 1, -> measurements.
    """

    name: str
    parameters: int
    frozen: bool
    steps: Mapping[int, ModuleStep]

    def warnings(self) -> Iterator[str]:
        """Yield the reasons why the module does not train as it should; none for a frozen module."""
        if self.frozen:
            return
        if not any(step.gradient_norm for step in self.steps.values()):
            yield f"{self.name} has no gradient in any observed step."
            return
        outside = [
            f"{step.update_ratio:.1e} in step {number}"
            for number, step in self.steps.items()
            if step.out_of_range()
        ]
        if outside:
            usual = f"{LOWEST_RATIO:.0e} to {HIGHEST_RATIO:.0e}"
            yield f"{self.name} has an update-to-weight ratio of {', '.join(outside)} (usual: {usual})."
        idle = sorted(set.intersection(*(set(step.idle) for step in self.steps.values())))
        if idle:
            names = ", ".join(idle[:NAMED]) + (f" and {len(idle) - NAMED} others" if idle[NAMED:] else "")
            yield f"These parameters of {self.name} have no gradient in any observed step: {names}."


def module_of(root: nn.Module, parameter: str, depth: int) -> str:
    """The path of the module that a parameter is reported under.

    The path ends at the first item of a list or mapping of modules (a decoder layer, a scale), and has at
    most ``depth`` parts otherwise.

    Args:
        root: the network.
        parameter: name of the parameter in it.
        depth: number of parts.
    """
    *path, own = parameter.split(".")
    kept: list[str] = []
    module = root
    for part in path:
        is_list = isinstance(module, nn.ModuleList | nn.ModuleDict)
        if len(kept) >= depth and not is_list:
            break
        kept.append(part)
        module = module.get_submodule(part)
        if is_list:
            break
    return ".".join(kept) or own


class UpdateMonitor:
    """Observes the optimiser steps of a network.

    Args:
        networks: prefix of the reported names -> network.
        optimizer: the optimiser of their parameters.
        depth: see :func:`module_of`.
    """

    def __init__(
        self, networks: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, *, depth: int = 3
    ) -> None:
        self._optimizer = optimizer
        self._groups: dict[str, dict[str, nn.Parameter]] = {}
        for prefix, network in networks.items():
            for name, parameter in network.named_parameters():
                group = self._groups.setdefault(prefix + module_of(network, name, depth), {})
                group[prefix + name] = parameter
        self._steps: dict[str, dict[int, ModuleStep]] = {name: {} for name in self._groups}
        self._trainable: set[str] = set()

    @contextmanager
    def observe(self, number: int) -> Iterator[None]:
        """Measure the optimiser step made inside the block.

        Gradients are those that the optimiser receives, see :meth:`rescale`.

        Args:
            number: of the step, counted from 1.
        """
        before: dict[str, Tensor] = {}
        received: dict[str, Tensor | None] = {}

        def remember(*_: Any) -> None:
            for group in self._groups.values():
                for name, parameter in group.items():
                    before[name] = parameter.detach().clone()
                    received[name] = None if parameter.grad is None else parameter.grad.detach().clone()

        handle = self._optimizer.register_step_pre_hook(remember)
        try:
            yield
        finally:
            handle.remove()
        self._measure(number, before, received)

    def updates(self) -> list[ModuleUpdates]:
        """The observed steps of every module, in the order of the networks' parameters."""
        return [
            ModuleUpdates(
                name,
                sum(parameter.numel() for parameter in group.values()),
                frozen=name not in self._trainable,
                steps=self._steps[name],
            )
            for name, group in self._groups.items()
        ]

    def rescale(self, number: int, factor: float) -> None:
        """Multiply the gradient norms of an observed step, to undo clipping or loss scaling."""
        for steps in self._steps.values():
            old = steps[number]
            steps[number] = ModuleStep(
                old.gradient_norm * factor, old.share, old.weight_norm, old.update_ratio, old.idle
            )

    def total(self, number: int) -> float:
        """The gradient norm of all modules in an observed step."""
        return math.hypot(*(steps[number].gradient_norm for steps in self._steps.values()))

    def _measure(
        self, number: int, before: Mapping[str, Tensor], received: Mapping[str, Tensor | None]
    ) -> None:
        gradients = {
            name: _norm(value for key in group if (value := received[key]) is not None)
            for name, group in self._groups.items()
        }
        total = math.hypot(*gradients.values())
        for name, group in self._groups.items():
            matrices = {key: value for key, value in group.items() if value.dim() > 1}
            weight = _norm(before[key] for key in matrices)
            change = _norm(value.detach() - before[key] for key, value in matrices.items())
            trainable = [key for key, value in group.items() if value.requires_grad]
            if trainable:
                self._trainable.add(name)
            self._steps[name][number] = ModuleStep(
                gradient_norm=gradients[name],
                share=(gradients[name] / total) ** 2 if total else 0.0,
                weight_norm=weight,
                update_ratio=change / weight if weight else None,
                idle=tuple(key for key in trainable if _is_zero(received[key])),
            )


def _norm(values: Iterable[Tensor]) -> float:
    """The L2 norm of all elements of all tensors."""
    return math.hypot(*(float(torch.linalg.vector_norm(value.double())) for value in values))


def _is_zero(gradient: Tensor | None) -> bool:
    return gradient is None or not gradient.any()
