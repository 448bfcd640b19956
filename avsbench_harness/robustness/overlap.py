"""Overlap of two predictions of the same clips, and the audio sensitivity that follows from it.

Audio sensitivity: 1 - mean IoU of the prediction with the clip's own audio and the prediction with other
audio; the mean over the frames of a clip, then over clips. 0: the audio has no effect on the predicted masks;
1: no predicted pixel is kept. It needs no ground truth, and says nothing about which prediction is better.
Source: this project.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from avsbench_harness.scoring.scores import Floats
from avsbench_harness.submission import Submission
from avsbench_harness.submission.codes import OBJECT
from avsbench_harness.tasks import get_task


def frame_overlaps(one: npt.NDArray[np.uint8], two: npt.NDArray[np.uint8], semantic: bool) -> Floats:
    """Return the IoU of two predictions in each frame, 1 if both are empty.

    Args:
        one, two: (T,H,W) threshold codes, of which the masks p > 0.5 are compared; if ``semantic``, labels: a
            pixel is in the intersection if both have the same class, and in the union if either has one.
        semantic: whether these are labels.

    Returns:
        (T,) in [0, 1].
    """
    kept: npt.NDArray[Any]
    first, second = (one > 0, two > 0) if semantic else (one >= OBJECT, two >= OBJECT)
    kept = first & (one == two) if semantic else first & second
    both, union = (pixels.sum(axis=(1, 2), dtype=np.float64) for pixels in (kept, first | second))
    overlaps: Floats = np.where(union > 0, both / np.maximum(union, 1), 1.0)
    return overlaps


def clip_overlaps(clean: Submission, other: Submission, clips: Sequence[str]) -> Floats:
    """Return the mean IoU over the frames of each clip between two submissions, (N,) in [0, 1].

    Raises:
        SubmissionError: a clip is missing or damaged.
    """
    semantic = get_task(clean.header.task).semantic
    return np.array(
        [frame_overlaps(clean.read(clip), other.read(clip), semantic).mean() for clip in clips], np.float64
    )
