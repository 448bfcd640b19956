"""Clips as images: their frames side by side, with the outlines of ground truth and prediction."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.data.clip import Clip
from avsbench_harness.data.images import read_frame
from avsbench_harness.submission.codes import OBJECT
from avsbench_harness.submission.reader import Submission
from avsbench_harness.submission.solution import Solution
from avsbench_harness.tasks import MASK_SIZE, get_task

#: Colours of the outlines.
TRUTH, PREDICTION = "#ffd60a", "#0096ff"


def strip(
    frames: NDArray[np.uint8], truth: NDArray[np.uint8], prediction: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Frames side by side with outlines, dark at the edge: ground truth yellow, prediction blue.

    Args:
        frames: (T,H,W,3).
        truth, prediction: (T,H,W) labels, 0 for background.

    Returns:
        (H, T*W, 3) uint8.
    """
    from matplotlib.colors import to_rgb
    from scipy.ndimage import binary_dilation
    from skimage.segmentation import find_boundaries

    drawn = frames.copy()
    for labels, colour in ((truth, TRUTH), (prediction, PREDICTION)):
        rgb = (255 * np.array(to_rgb(colour))).astype(np.uint8)
        for frame, mask in zip(drawn, labels, strict=True):
            edge = find_boundaries(mask, mode="thick")
            frame[binary_dilation(edge) & ~edge] = 0
            frame[edge] = rgb
    joined: NDArray[np.uint8] = np.concatenate(list(drawn), axis=1)
    return joined


def clip_strip(clip: Clip, submission: Submission, solution: Solution) -> NDArray[np.uint8]:
    """The frames of a clip with the outlines of its ground truth and prediction (see :func:`strip`).

    Args:
        clip: the clip.
        submission: predictions; those of another size than the ground truth are resized (nearest pixel).
        solution: ground truth.
    """
    truth, prediction = solution.read(clip.id), submission.read(clip.id)
    if not get_task(submission.header.task).semantic:
        prediction = (prediction >= OBJECT).astype(np.uint8)
    rows, columns = (
        np.arange(wanted) * found // wanted
        for wanted, found in zip(truth.shape[-2:], prediction.shape[-2:], strict=True)
    )
    prediction = prediction[:, rows][:, :, columns]
    frames = np.stack([read_frame(frame, MASK_SIZE) for frame in clip.frames])
    return strip(frames, truth[: len(frames)], prediction[: len(frames)])
