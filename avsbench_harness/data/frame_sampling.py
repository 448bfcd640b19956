"""Frame sampling: training clips with evenly spaced frames, their audio and their ground truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.data.clip import Clip


def even_frames(count: int, wanted: int) -> list[int]:
    """Return the indices of ``wanted`` evenly spaced frames of ``count``, the first included; at most all."""
    if wanted >= count:
        return list(range(count))
    return [index * count // wanted for index in range(wanted)]


def sample_frames(clips: Sequence[Clip], wanted: int) -> list[Clip]:
    """Return the clips with at most ``wanted`` frames each."""
    sampled = []
    for clip in clips:
        kept = even_frames(len(clip.frames), wanted)
        frames = tuple(clip.frames[index] for index in kept)
        sampled.append(replace(clip, frames=frames, masks=tuple(clip.masks[index] for index in kept)))
    return sampled


class SampledAudio(Mapping[str, NDArray[np.float32]]):
    """The audio of the sampled frames, padded with zeros to the original shape.

    Args:
        audio: per clip id (T,...); each array is read when it is accessed.
        clips: the clips before sampling.
        wanted: number of frames, as for :func:`sample_frames`.
    """

    def __init__(self, audio: Mapping[str, NDArray[np.float32]], clips: Sequence[Clip], wanted: int) -> None:
        self._audio = audio
        self._kept = {clip.id: even_frames(len(clip.frames), wanted) for clip in clips}

    def __getitem__(self, clip: str) -> NDArray[np.float32]:
        """The audio of a clip, (T,...)."""
        kept, audio = self._kept[clip], self._audio[clip]
        sampled = np.zeros_like(audio)
        sampled[: len(kept)] = audio[kept]
        return sampled

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)


def sample_files(
    files: Mapping[str, Sequence[Path]], clips: Sequence[Clip], wanted: int
) -> dict[str, list[Path]]:
    """Return per clip id the files of its sampled frames."""
    return {clip.id: [files[clip.id][i] for i in even_frames(len(clip.frames), wanted)] for clip in clips}
