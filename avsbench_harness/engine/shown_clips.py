"""The clips of the validation split that trackers show after each validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.data.clip import Clip
from avsbench_harness.data.loader import ClipDataset
from avsbench_harness.submission import Solution, Submission
from avsbench_harness.submission.strips import clip_strip

#: Number of clips.
SHOWN = 4


def shown_clips(dataset: ClipDataset) -> list[Clip]:
    """The same few clips for every validation of a data set, evenly spaced among those with audio."""
    with_audio = set(dataset.audio)
    clips = [clip for clip in dataset.clips if clip.id in with_audio]
    count = min(SHOWN, len(clips))
    return [clips[index * len(clips) // count] for index in range(count)]


def clip_images(
    clips: Sequence[Clip], submission: Submission, solution: Solution
) -> dict[str, NDArray[np.uint8]]:
    """Clip id -> (112, T*112, 3) uint8: its frames with the outlines of ground truth and prediction."""
    return {clip.id: _halved(clip_strip(clip, submission, solution)) for clip in clips}


def _halved(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image (2H,2W,3) at half its size, (H,W,3): the mean of 2 x 2 pixels."""
    height, width, _ = image.shape
    blocks = image.reshape(height // 2, 2, width // 2, 2, 3)
    halved: NDArray[np.uint8] = blocks.mean((1, 3)).round().astype(np.uint8)
    return halved
