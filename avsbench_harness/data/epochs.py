"""The clips of every training step: the order of an epoch, cut into batches."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from avsbench_harness.recipe.schema import PartialBatches

#: Index of a clip, and epoch of its augmentation.
Key: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Epochs:
    """The batches of a training, functions of the seed and the step; steps and epochs count from 0.

    Every epoch is a permutation of all clips. With ``wrap`` the permutations form one sequence that is cut
    into full batches, and a batch belongs to the epoch of its first clip.

    Attributes:
        clips: number of training clips.
        batch_size: clips per batch.
        partial: an epoch's last batch, if there are too few clips for it.
        seed: of the run.
    """

    clips: int
    batch_size: int
    partial: PartialBatches = "keep"
    seed: int = 0

    def start(self, epoch: int) -> int:
        """The first step that is after all steps of the epochs before ``epoch``."""
        if self.partial == "wrap":
            return -(-epoch * self.clips // self.batch_size)
        rounded = self.clips if self.partial == "drop" else self.clips + self.batch_size - 1
        return epoch * (rounded // self.batch_size)

    def of(self, step: int) -> int:
        """The epoch of a step, which is the number of epochs that are complete before it."""
        if self.partial == "wrap":
            return step * self.batch_size // self.clips
        return step // self.start(1)

    def batch(self, step: int) -> list[Key]:
        """The clips of a step."""
        begin, end = self._place(step), self._place(step + 1)
        if self.partial == "drop":
            end = begin + self.batch_size
        places = (divmod(place, self.clips) for place in range(begin, end))
        return [(_order(self.clips, self.seed, epoch)[index], epoch) for epoch, index in places]

    def used(self, steps: int) -> list[int]:
        """The clips of the first ``steps`` steps, in ascending order."""
        if steps >= self.start(1):
            return list(range(self.clips))
        return sorted({index for step in range(steps) for index, _ in self.batch(step)})

    def clips_before(self, step: int) -> int:
        """The number of clips of all steps before ``step``."""
        return step * self.batch_size if self.partial == "drop" else self._place(step)

    def _place(self, step: int) -> int:
        """The place of a step's first clip in the sequence of all epochs."""
        if self.partial == "wrap":
            return step * self.batch_size
        epoch = self.of(step)
        return epoch * self.clips + (step - self.start(epoch)) * self.batch_size


def generator(seed: int, epoch: int, name: str) -> np.random.Generator:
    """The random generator of one name in one epoch of a run."""
    key = np.random.SeedSequence([seed, epoch, zlib.crc32(name.encode())])
    return np.random.Generator(np.random.Philox(key))


@lru_cache(maxsize=4)
def _order(clips: int, seed: int, epoch: int) -> list[int]:
    order: list[int] = generator(seed, epoch, "order").permutation(clips).tolist()
    return order
