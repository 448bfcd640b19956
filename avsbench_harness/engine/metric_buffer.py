"""Loss terms as numbers: read from the device every few steps, so that no step waits for the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: Steps between two readings, by the kind of device; on the CPU there is nothing to wait for.
STEPS = {"cpu": 1, "cuda": 20}


@dataclass(frozen=True)
class Reading:
    """One training step as numbers.

    Attributes:
        step: counted from 1.
        epoch: counted from 1.
        clips: ids of the batch.
        terms: ``loss`` and its terms.
        figures: what the model says of itself.
    """

    step: int
    epoch: int
    clips: Sequence[str]
    terms: dict[str, float]
    figures: dict[str, float]


@dataclass(frozen=True)
class _Pending:
    step: int
    epoch: int
    clips: Sequence[str]
    names: tuple[str, ...]
    figures: dict[str, float]
    values: Tensor


class Readings:
    """Steps whose losses are still on the device."""

    def __init__(self, device: str) -> None:
        self._every = STEPS[device.split(":")[0]]
        self._pending: list[_Pending] = []

    @property
    def due(self) -> bool:
        """Whether it is time to :meth:`take` them.

        That depends on the step alone, so that the processes of a run agree, although a clock decides when
        each takes them early for a checkpoint: what follows a reading they do together.
        """
        return bool(self._pending) and self._pending[-1].step % self._every == 0

    def add(
        self,
        step: int,
        epoch: int,
        clips: Sequence[str],
        terms: Mapping[str, Tensor],
        figures: Mapping[str, float],
    ) -> None:
        """Remember a step; nothing waits for the device."""
        values = torch.stack(list(terms.values())).double()
        self._pending.append(_Pending(step, epoch, clips, tuple(terms), dict(figures), values))

    def take(self) -> list[Reading]:
        """All steps since the last call, in order."""
        pending, self._pending = self._pending, []
        if not pending:
            return []
        numbers = iter(torch.cat([entry.values for entry in pending]).tolist())
        return [
            Reading(
                entry.step,
                entry.epoch,
                entry.clips,
                {name: next(numbers) for name in entry.names},
                entry.figures,
            )
            for entry in pending
        ]
