"""Values per clip under each audio condition, from which the metrics in :mod:`.metrics` follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from avsbench_harness.robustness.overlap import frame_overlaps
from avsbench_harness.scoring.counts import count_labels
from avsbench_harness.scoring.scores import Floats
from avsbench_harness.submission import Solution, Submission
from avsbench_harness.submission.codes import OBJECT
from avsbench_harness.tasks import CLASSES, get_task


@dataclass(frozen=True)
class ClassAreas:
    """Areas per clip and class of avss, sums over the frames of a clip in units of frames, (N,71) each.

    Attributes:
        wrong: pixels that are predicted as the class and have another one.
        truth: pixels of the class.
        frames: (N,) number of frames.
    """

    wrong: Floats
    truth: Floats
    frames: Floats


@dataclass(frozen=True)
class ClipValues:
    """The values of N clips under one condition.

    Attributes:
        areas: (N,T) predicted share of each frame (p > 0.5; avss: any class but the background); NaN behind
            the end of a clip.
        overlaps: (N,) mean IoU over the frames of the predictions under the condition and under ``clean``.
        classes: for avss.
    """

    areas: Floats
    overlaps: Floats
    classes: ClassAreas | None = None


def frame_areas(predicted: npt.NDArray[np.uint8], semantic: bool) -> Floats:
    """Return the predicted share of each frame, (T,) in [0, 1], from codes, or labels if ``semantic``."""
    mask: npt.NDArray[Any] = predicted > 0 if semantic else predicted >= OBJECT
    shares: Floats = mask.mean(axis=(1, 2), dtype=np.float64)
    return shares


def clip_values(
    submissions: Mapping[str, Submission], clean: Submission, solution: Solution, clips: Sequence[str]
) -> dict[str, ClipValues]:
    """Return the values of clips under several conditions; every prediction is read once.

    Args:
        submissions: the predictions by condition.
        clean: the predictions under ``clean``.
        solution: the ground truth.
        clips: ids, in the order of the result.

    Raises:
        SubmissionError: a clip is missing or damaged.
    """
    task = get_task(solution.header.task)
    areas = {name: np.full((len(clips), task.frames), np.nan) for name in submissions}
    overlaps = {name: np.ones(len(clips)) for name in submissions}
    counts = {name: np.zeros((2, len(clips), len(CLASSES))) for name in submissions if task.semantic}
    frames = np.zeros(len(clips))
    for row, clip in enumerate(clips):
        own = clean.read(clip)
        truth = solution.read(clip) if task.semantic else None
        frames[row] = len(own)
        for name, submission in submissions.items():
            other = own if submission is clean else submission.read(clip)
            areas[name][row, : len(other)] = frame_areas(other, task.semantic)
            overlaps[name][row] = frame_overlaps(own, other, task.semantic).mean()
            if truth is not None:
                both, predicted, true = count_labels(other, truth).sum(axis=0) / other[0].size
                counts[name][:, row] = predicted - both, true
    classes = {name: ClassAreas(wrong, truth, frames) for name, (wrong, truth) in counts.items()}
    return {name: ClipValues(areas[name], overlaps[name], classes.get(name)) for name in submissions}
