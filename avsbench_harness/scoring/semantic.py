"""Protocols of AVSS: label maps of 71 classes, 0 background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from avsbench_harness.scoring.counts import Counts, count_labels
from avsbench_harness.scoring.object import BETA2
from avsbench_harness.scoring.protocol import Counter, Frames, Protocol
from avsbench_harness.scoring.scores import Floats, Tally, ratio
from avsbench_harness.tasks import AVSS, CLASSES

Array = npt.NDArray[Any]

_N = len(CLASSES)
_CLASS_COLUMNS: dict[str, Array] = {"class": np.arange(_N), "name": np.array(CLASSES)}


@dataclass(frozen=True)
class ClassFrames:
    """IoU, F and presence of each class in each frame, (F,71) each.

    A class is present in a frame if either map holds it; elsewhere IoU and F are 0 and do not count.
    """

    iou: Array
    f: Array
    present: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, counts: Counts, dtype: type[np.floating[Any]] = np.float64) -> ClassFrames:
        """From pixel counts (F,3,71), computed in the order of operations of the published code."""
        present = (counts[:, 1] > 0) | (counts[:, 2] > 0)
        both, predicted, truth = (counts[:, i][present].astype(dtype) for i in range(3))
        with np.errstate(invalid="ignore"):
            precision, recall = both / predicted, both / truth
            f = dtype(1 + BETA2) * precision * recall / (dtype(BETA2) * precision + recall)
        frames = cls(np.zeros(present.shape, dtype), np.zeros(present.shape, dtype), present)
        frames.iou[present] = both / (predicted + truth - both)  # the published 2.2e-16 is lost in float32
        frames.f[present] = np.minimum(np.nan_to_num(f), 1)  # rounding could lift a perfect frame over 1
        return frames


def frame_miou(frames: ClassFrames) -> Floats:
    """(F,) the published "frame miou": mean IoU over the classes with any overlap, NaN where there is none.

    It ignores wrong classes and no paper reports it.
    """
    return ratio(frames.iou.sum(axis=1), (frames.iou != 0).sum(axis=1).astype(np.float64))


def binary_j(counts: Counts) -> Floats:
    """(F,) J of "any foreground" as published, which takes the last class (woman) for the background.

    Args:
        counts: (F,3,71) of :func:`count_labels`.
    """
    last = counts[:, :, -1].astype(np.float64)
    pixels = counts[:, 1].sum(axis=1)
    both, predicted, truth = last.T
    overlap = (pixels - predicted - truth + both) / (pixels - both + 1e-7)
    j: Floats = np.where(truth < pixels, overlap, predicted / pixels)
    return j


@dataclass(frozen=True)
class SemanticCanonical(Protocol):
    """semantic/1: per frame and class, over real frames, in float64.

    - IoU of class c in a frame: |both| / |either|; F: F-beta (beta^2 = 0.3) of its pixels, 0 without overlap.
    - Value of a class: mean over the frames in which the prediction or the ground truth holds it; 0 for a
      class that no frame holds.
    - mIoU, F: mean over the 71 classes. mIoU_no_background, F_no_background: over the classes 1 to 70.
      mIoU_seen, F_seen: over the classes that some frame holds (``classes_seen`` of them).
    """

    name: ClassVar[str] = "semantic/1"
    main: ClassVar[tuple[str, ...]] = ("mIoU", "F")
    _dtype: ClassVar[type[np.floating[Any]]] = np.float64
    _padded_to: ClassVar[int] = 0  # frames of a clip when padded frames count

    @property
    def count(self) -> Counter:
        """Pixel counts (T,3,71)."""
        return count_labels

    def tally(self, frames: Frames) -> Tally:
        """One row per clip: sums of IoU and F and numbers of frames, 71 each."""
        classes = ClassFrames.of(frames.counts, self._dtype)
        parts = [frames.per_clip(values) for values in (classes.iou, classes.f, classes.present)]
        padding = np.maximum(self._padded_to - frames.lengths, 0)
        for part in parts:
            part[:, 0] += padding  # a padded frame is background that is predicted as background
        sums = np.concatenate(parts, axis=1)
        own = _class_values(sums)
        return Tally(
            sums=sums,
            reduce=self.reduce,
            per_clip={
                "frames": frames.lengths,
                "mIoU": _mean_seen(own[0], own[2]),
                "F": _mean_seen(own[1], own[2]),
            },
            per_class=_class_table,
            class_sums=("IoU", "F", "frames"),
        )

    def reduce(self, sums: Floats) -> dict[str, Floats]:
        """The metrics from sums (..., 213): of IoU, of F, and numbers of frames, 71 each."""
        iou, f, frames = _class_values(sums)
        return {
            "mIoU": iou.mean(axis=-1),
            "F": f.mean(axis=-1),
            "mIoU_no_background": iou[..., 1:].mean(axis=-1),
            "F_no_background": f[..., 1:].mean(axis=-1),
            "mIoU_seen": _mean_seen(iou, frames),
            "F_seen": _mean_seen(f, frames),
            "classes_seen": (frames > 0).sum(axis=-1).astype(np.float64),
        }


@dataclass(frozen=True)
class AVSSAVSBench(SemanticCanonical):
    """avss-avsbench: test scripts of AVSBench (Zhou et al., 2023) and AVSegFormer on AVSS, in float32.

    As semantic/1, but a clip of 5 frames is padded to 10 with frames that count: background predicted as
    background, IoU = F = 1 for class 0. ``mIoU_noBg`` and ``F_noBg`` are the published means "without
    background", over the classes 0 to 69: they keep the background and drop class 70 (woman). They do not
    depend on the batch size.
    """

    name: ClassVar[str] = "avss-avsbench"
    _dtype: ClassVar[type[np.floating[Any]]] = np.float32
    _padded_to: ClassVar[int] = AVSS.frames

    def reduce(self, sums: Floats) -> dict[str, Floats]:
        """As for semantic/1, with the published means "without background"."""
        values = super().reduce(sums)
        iou, f, _ = _class_values(sums)
        return {**values, "mIoU_noBg": iou[..., :-1].mean(axis=-1), "F_noBg": f[..., :-1].mean(axis=-1)}


@dataclass(frozen=True)
class AVSSCombo(AVSSAVSBench):
    """avss-combo: evaluator of COMBO (Yang et al., CVPR 2024) on AVSS: avss-avsbench over real frames only.

    Results are reported with four decimals (``mIoU_reported``, ``F_reported``).
    """

    name: ClassVar[str] = "avss-combo"
    _padded_to: ClassVar[int] = 0

    def reduce(self, sums: Floats) -> dict[str, Floats]:
        """As for avss-avsbench, with the figures as reported."""
        values = super().reduce(sums)
        return {**values, **{f"{name}_reported": values[name].round(4) for name in self.main}}


@dataclass(frozen=True)
class SemanticConfusion(Protocol):
    """confusion: IoU from one confusion matrix over all pixels of the split, as in semantic segmentation.

    mIoU: mean over the classes that the prediction or the ground truth holds anywhere; mIoU_no_background:
    the same without class 0. pixel_accuracy: share of pixels with the right label. Real frames only.
    """

    name: ClassVar[str] = "confusion"
    main: ClassVar[tuple[str, ...]] = ("mIoU", "pixel_accuracy")

    @property
    def count(self) -> Counter:
        """Pixel counts (T,3,71)."""
        return count_labels

    def tally(self, frames: Frames) -> Tally:
        """One row per clip: pixels in both maps, in the prediction, in the ground truth, 71 each."""
        sums = frames.per_clip(frames.counts.reshape(len(frames.counts), -1))
        return Tally(
            sums=sums,
            reduce=_reduce_confusion,
            per_clip={"frames": frames.lengths, **_reduce_confusion(sums)},
            per_class=_confusion_table,
            class_sums=("both", "predicted", "truth"),
        )


def _reduce_confusion(sums: Floats) -> dict[str, Floats]:
    both, predicted, _ = _thirds(sums)
    union = _union(sums)
    iou = np.nan_to_num(ratio(both, union))
    return {
        "mIoU": _mean_seen(iou, union),
        "mIoU_no_background": _mean_seen(iou[..., 1:], union[..., 1:]),
        "pixel_accuracy": ratio(both.sum(axis=-1), predicted.sum(axis=-1)),
    }


def _class_table(total: Floats) -> dict[str, Array]:
    iou, f, frames = _class_values(total)
    return {**_CLASS_COLUMNS, "IoU": iou, "F": f, "frames": frames.astype(int)}


def _confusion_table(total: Floats) -> dict[str, Array]:
    return {**_CLASS_COLUMNS, "IoU": ratio(_thirds(total)[0], _union(total))}


def _thirds(sums: Floats) -> tuple[Floats, Floats, Floats]:
    return sums[..., :_N], sums[..., _N : 2 * _N], sums[..., 2 * _N :]


def _union(sums: Floats) -> Floats:
    both, predicted, truth = _thirds(sums)
    return predicted + truth - both


def _class_values(sums: Floats) -> tuple[Floats, Floats, Floats]:
    """IoU and F of each class, 0 for those in no frame, and the number of frames."""
    iou, f, frames = _thirds(sums)
    return np.nan_to_num(ratio(iou, frames)), np.nan_to_num(ratio(f, frames)), frames


def _mean_seen(values: Floats, frames: Floats) -> Floats:
    """Mean over the classes with frames; the others' values are 0."""
    return ratio(values.sum(axis=-1), (frames > 0).sum(axis=-1).astype(np.float64))
