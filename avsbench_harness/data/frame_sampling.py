"""Training clips with fewer frames: some of a clip's, evenly spaced, with their sound and ground truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.data.clip import Clip


def even_frames(count: int, wanted: int) -> list[int]:
    """Which of ``count`` frames to take, the first always among them; all where ``wanted`` are not there."""
    if wanted >= count:
        return list(range(count))
    return [index * count // wanted for index in range(wanted)]


def thin_clips(clips: Sequence[Clip], wanted: int) -> list[Clip]:
    """The clips with at most so many frames each."""
    thin = []
    for clip in clips:
        kept = even_frames(len(clip.frames), wanted)
        frames = tuple(clip.frames[index] for index in kept)
        thin.append(replace(clip, frames=frames, masks=tuple(clip.masks[index] for index in kept)))
    return thin


class ThinSounds(Mapping[str, NDArray[np.float32]]):
    """The sound of the frames that are left of each clip, with zeros behind; shapes stay.

    Args:
        sounds: per clip id (T,...); each is taken when it is asked for.
        clips: as they were before.
        wanted: as for :func:`thin_clips`.
    """

    def __init__(self, sounds: Mapping[str, NDArray[np.float32]], clips: Sequence[Clip], wanted: int) -> None:
        self._sounds = sounds
        self._kept = {clip.id: even_frames(len(clip.frames), wanted) for clip in clips}

    def __getitem__(self, clip: str) -> NDArray[np.float32]:
        """The sound of a clip, (T,...)."""
        kept, sound = self._kept[clip], self._sounds[clip]
        thin = np.zeros_like(sound)
        thin[: len(kept)] = sound[kept]
        return thin

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)


def thin_files(
    files: Mapping[str, Sequence[Path]], clips: Sequence[Clip], wanted: int
) -> dict[str, list[Path]]:
    """One file per frame that is left of each clip."""
    return {clip.id: [files[clip.id][i] for i in even_frames(len(clip.frames), wanted)] for clip in clips}
