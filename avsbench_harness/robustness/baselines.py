"""Scores of trivial predictions, as a reference for those of models.

- ``nothing``: empty masks (avss: background).
- ``everything``: full masks (s4 and ms3; a label map has one class per pixel, so there is none for avss).
- ``every object``: the masks of all drawn objects of composed data, sounding or not (avss: of those with a
  class). It is the prediction of a perfect segmenter that ignores the audio.

The masks are binary. F is the maximum over thresholds that include 0, which every pixel passes, so that F of
``nothing`` is that of ``everything``; F_half compares the masks themselves.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.console import track
from avsbench_harness.data.avsbench.composition import read_composition, read_objects
from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.data.clip import Clip
from avsbench_harness.data.mini.media import class_index
from avsbench_harness.errors import UsageError
from avsbench_harness.scoring import Scores, get_protocol
from avsbench_harness.scoring.protocol import Scorer
from avsbench_harness.submission import Solution
from avsbench_harness.tasks import Split

#: (T,H,W) uint8 threshold codes or labels.
_Prediction = NDArray[np.uint8]

_FULL = 255  # the code of probability 1


def baseline_scores(dataset: Dataset, split: Split, solution: Solution) -> dict[str, Scores]:
    """Return the canonical scores of the trivial predictions of a split by name.

    Args:
        dataset: the data set.
        split: the split.
        solution: the ground truth of the split.

    Raises:
        UsageError: the solution is of other clips.
        MissingDataError, BadFileError: a file of composed data is missing or malformed.
    """
    clips = {clip.id: clip for clip in dataset.clips(split)}
    if set(clips) != set(solution.clips):
        raise UsageError(f"{solution.path} is not the ground truth of the {split} split of {dataset.root}.")
    predictions = _predictions(dataset, split)
    protocol = get_protocol(dataset.task.name)
    scorers = {name: Scorer(protocol, solution.header.size) for name in predictions}
    for clip in track(list(solution.clips), "baselines"):
        truth = solution.read(clip)
        for name, predict in predictions.items():
            scorers[name].add(protocol.count(predict(clips[clip], truth), truth))
    return {
        name: scorer.scores(
            list(solution.clips),
            solution=solution.fingerprint,
            dataset=solution.header.dataset,
            synthetic=solution.header.synthetic,
        )
        for name, scorer in scorers.items()
    }


def _predictions(
    dataset: Dataset, split: Split
) -> dict[str, Callable[[Clip, NDArray[np.uint8]], _Prediction]]:
    """The trivial predictions by name: functions of the clip and of an array of the masks' shape."""
    found: dict[str, Callable[[Clip, NDArray[np.uint8]], _Prediction]] = {
        "nothing": lambda clip, like: np.zeros_like(like)
    }
    if not dataset.task.semantic:
        found["everything"] = lambda clip, like: np.full_like(like, _FULL)
    if dataset.composed is not None:
        found["every object"] = lambda clip, like: every_object(dataset, split, clip)
    return found


def every_object(dataset: Dataset, split: Split, clip: Clip) -> _Prediction:
    """Return the prediction of all drawn objects of a clip of composed data, (T,224,224).

    Codes 0 and 255, in avss the classes of the objects. Objects of a kind without a class are background.
    """
    objects = read_objects(dataset, split, clip)
    listed = read_composition(dataset, split, clip).objects
    if objects.max() > len(listed):
        raise UsageError(
            f"The objects of clip {clip.id} in {dataset.root} are not those that its description lists; "
            "compose the data set again."
        )
    semantic = dataset.task.semantic
    values = [(class_index(one.kind) or 0) if semantic else _FULL for one in listed]
    return np.array([0, *values], np.uint8)[objects]
