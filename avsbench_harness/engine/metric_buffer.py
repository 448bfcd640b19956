"""Loss terms that stay on the device for some steps, so that no step waits for the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from avsbench_harness.tracking.tracker import StepEntry, finite

#: Steps between two transfers to the host, by the type of device; on the CPU there is nothing to wait for.
INTERVALS = {"cpu": 1, "cuda": 20}


@dataclass(frozen=True)
class StepMetrics:
    """The losses and diagnostics of one training step.

    Attributes:
        step: counted from 1.
        epoch: counted from 1.
        clips: ids of the batch's clips.
        terms: ``loss`` and its terms.
        diagnostics: logged by the model, see ``Model.diagnostics``.
        lr: learning rate, without the multiples of parameter groups.
        gradient_norm: before clipping.
        measured: see :class:`.StepEntry`.
    """

    step: int
    epoch: int
    clips: Sequence[str]
    terms: dict[str, float]
    diagnostics: dict[str, float]
    lr: float
    gradient_norm: float
    measured: Mapping[str, float]

    def entry(self) -> StepEntry:
        """The step as an entry of a training log."""
        norm = finite(self.gradient_norm)
        return StepEntry(self.step, self.epoch, self.terms, self.diagnostics, self.lr, norm, self.measured)


@dataclass(frozen=True)
class _Pending:
    step: int
    epoch: int
    clips: Sequence[str]
    names: tuple[str, ...]
    diagnostics: dict[str, float]
    lr: float
    measured: Mapping[str, float]
    values: Tensor


class MetricBuffer:
    """Steps whose losses are still on the device."""

    def __init__(self, device: str) -> None:
        self._interval = INTERVALS[device.split(":")[0]]
        self._pending: list[_Pending] = []
        self._first = True

    @property
    def due(self) -> bool:
        """Whether to :meth:`take` the buffered steps now: after the first step, and at every interval.

        Depends on the step alone, so that all processes of a run agree, although each takes them earlier for
        a checkpoint by its own clock: collectives follow a transfer.
        """
        return bool(self._pending) and (self._first or self._pending[-1].step % self._interval == 0)

    def add(
        self,
        step: int,
        epoch: int,
        clips: Sequence[str],
        terms: Mapping[str, Tensor],
        diagnostics: Mapping[str, float],
        *,
        lr: float,
        gradient_norm: Tensor,
        measured: Mapping[str, float],
    ) -> None:
        """Buffer a step without waiting for the device; see :class:`StepMetrics`."""
        values = torch.stack([term.double() for term in (*terms.values(), gradient_norm)])
        names = tuple(terms)
        self._pending.append(_Pending(step, epoch, clips, names, dict(diagnostics), lr, measured, values))

    def take(self) -> list[StepMetrics]:
        """Remove and return all buffered steps, in order."""
        pending, self._pending = self._pending, []
        self._first &= not pending
        if not pending:
            return []
        numbers = iter(torch.cat([entry.values for entry in pending]).tolist())
        return [
            StepMetrics(
                entry.step,
                entry.epoch,
                entry.clips,
                {name: next(numbers) for name in entry.names},
                entry.diagnostics,
                entry.lr,
                next(numbers),
                entry.measured,
            )
            for entry in pending
        ]
