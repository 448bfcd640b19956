"""Negative audio in training: clips whose recording is replaced, so that nothing visible sounds.

The target of such a clip is empty. Replacements are the audio inputs of changed recordings and of other
training clips, which the cache holds, so that frozen encoders compute nothing in a training step. Like the
augmentation, every draw is a function of the run's seed, the epoch and the clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.recipe.augment import NegativeAudio

#: Audio inputs per clip id.
Sounds = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class ClipKinds:
    """The kinds of a training clip: those that sound in it, those that are visible, and its length."""

    id: str
    sounding: frozenset[str]
    visible: frozenset[str]
    frames: int


class Negatives:
    """The negative audio of training clips. It can be pickled.

    Args:
        shares: the probabilities.
        silence: audio inputs of silent recordings; empty if ``shares.silence`` is 0.
        noise: audio inputs of noise, several draws per clip; empty if ``shares.noise`` is 0.
        own: audio inputs of the clips' own recordings, for swaps.
        clips: all training clips; the kinds are needed for swaps alone.
    """

    def __init__(
        self,
        shares: NegativeAudio,
        silence: Sounds,
        noise: Sequence[Sounds],
        own: Sounds,
        clips: Sequence[ClipKinds],
    ) -> None:
        self.shares, self._silence, self._noise, self._own = shares, silence, noise, own
        self._ids = [clip.id for clip in clips]
        self._rows = {name: row for row, name in enumerate(self._ids)}
        self._frames = np.array([clip.frames for clip in clips])
        names = sorted({kind for clip in clips for kind in clip.sounding | clip.visible})
        self._sounding = _table([clip.sounding for clip in clips], names)
        self._present = _table([clip.sounding | clip.visible for clip in clips], names)

    def draw(self, clip: str, draw: np.random.Generator) -> NDArray[np.float32] | None:
        """Return the negative audio input of a clip, ``None`` if it keeps its own.

        A clip for which there is no recording to swap keeps its own.

        Args:
            clip: its id.
            draw: the random generator; the same state gives the same audio.
        """
        value, shares = draw.random(), self.shares
        if value < shares.silence:
            return self._silence[clip]
        if value < shares.silence + shares.noise:
            # Of any clip of the same length, so that a clip does not always have the same noise.
            sounds = self._noise[int(draw.integers(len(self._noise)))]
            same = np.flatnonzero(self._frames == self._frames[self._rows[clip]])
            return sounds[self._ids[int(draw.choice(same))]]
        if value < shares.silence + shares.noise + shares.swapped:
            others = self.others(clip)
            return self._own[str(draw.choice(others))] if others else None
        return None

    def others(self, clip: str) -> list[str]:
        """The clips of the same length in which nothing sounds that sounds or is visible in a clip."""
        row = self._rows[clip]
        common = self._sounding @ self._present[row]
        audible = self._sounding.any(axis=1)
        allowed = (common == 0) & audible & (self._frames == self._frames[row])
        return [self._ids[index] for index in np.flatnonzero(allowed)]


def _table(kinds: Sequence[frozenset[str]], names: Sequence[str]) -> NDArray[np.float32]:
    """(N,K): whether a clip has a kind."""
    columns = {name: column for column, name in enumerate(names)}
    table = np.zeros((len(kinds), len(names)), np.float32)
    for row, found in enumerate(kinds):
        table[row, [columns[kind] for kind in found]] = 1
    return table
