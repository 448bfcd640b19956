"""Protocols of AVSS: label maps of 71 classes, class 0 is the background."""

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

    A class is present in a frame if the prediction or the ground truth contains it. IoU and F of absent
    classes are 0 and not counted.
    """

    iou: Array
    f: Array
    present: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, counts: Counts, dtype: type[np.floating[Any]] = np.float64) -> ClassFrames:
        """Compute from pixel counts (F,3,71), with the order of operations of the published code."""
        present = (counts[:, 1] > 0) | (counts[:, 2] > 0)
        both, predicted, truth = (counts[:, i][present].astype(dtype) for i in range(3))
        with np.errstate(invalid="ignore"):
            precision, recall = both / predicted, both / truth
            f = dtype(1 + BETA2) * precision * recall / (dtype(BETA2) * precision + recall)
        frames = cls(np.zeros(present.shape, dtype), np.zeros(present.shape, dtype), present)
        frames.iou[present] = both / (predicted + truth - both)  # the published + 2.2e-16 vanishes in float32
        frames.f[present] = np.minimum(np.nan_to_num(f), 1)  # rounding can exceed 1
        return frames


def frame_miou(frames: ClassFrames) -> Floats:
    """(F,) "frame miou" of the published code: mean IoU over the classes with overlap, NaN without any.

    It ignores wrongly predicted classes; no paper reports it.
    """
    return ratio(frames.iou.sum(axis=1), (frames.iou != 0).sum(axis=1).astype(np.float64))


def binary_j(counts: Counts) -> Floats:
    """(F,) foreground J of the published code, which takes the last class (woman) for the background.

    Args:
        counts: (F,3,71), result of :func:`count_labels`.
    """
    last = counts[:, :, -1].astype(np.float64)
    pixels = counts[:, 1].sum(axis=1)
    both, predicted, truth = last.T
    overlap = (pixels - predicted - truth + both) / (pixels - both + 1e-7)
    j: Floats = np.where(truth < pixels, overlap, predicted / pixels)
    return j


@dataclass(frozen=True)
class SemanticCanonical(Protocol):
    """semantic/1: mean over frames per class, then over classes, without padded frames, in float64.

    - IoU of a class in a frame: |intersection| / |union|. F: F-beta (beta^2 = 0.3), 0 without intersection.
    - Value of a class: mean over the frames in which the prediction or the ground truth contains it; 0 for a
      class without such a frame.
    - mIoU, F: mean over all 71 classes. mIoU_no_background, F_no_background: mean over classes 1 to 70.
      mIoU_seen, F_seen: mean over the classes with such a frame; ``classes_seen`` is their number.
    """

    name: ClassVar[str] = "semantic/1"
    main: ClassVar[tuple[str, ...]] = ("mIoU", "F")
    _dtype: ClassVar[type[np.floating[Any]]] = np.float64
    _padded_to: ClassVar[int] = 0  # number of frames if padded frames count

    @property
    def count(self) -> Counter:
        """Pixel counts (T,3,71)."""
        return count_labels

    def tally(self, frames: Frames) -> Tally:
        """One row per clip: sums of IoU, sums of F and numbers of frames, 71 each."""
        classes = ClassFrames.of(frames.counts, self._dtype)
        parts = [frames.per_clip(values) for values in (classes.iou, classes.f, classes.present)]
        sums = self.padded(np.concatenate(parts, axis=1), frames.lengths)
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

    def padded(self, sums: Floats, lengths: Array) -> Floats:
        """The rows of the clips, (N,213), with the padded frames of this protocol.

        Args:
            sums: of the valid frames.
            lengths: (N,) numbers of valid frames.
        """
        found = sums.copy()
        # IoU = F = 1 for the background
        found[:, [0, _N, 2 * _N]] += np.maximum(self._padded_to - lengths, 0)[:, None]
        return found

    def reduce(self, sums: Floats) -> dict[str, Floats]:
        """The metrics from (..., 213): sums of IoU, sums of F and numbers of frames, 71 each."""
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

    As semantic/1, but clips of 5 frames are padded to 10, and the padded frames count as background predicted
    as background: IoU = F = 1 for class 0. ``mIoU_noBg`` and ``F_noBg`` are the published means "without
    background" over classes 0 to 69, which include the background and omit class 70 (woman). The metrics do
    not depend on the batch size.
    """

    name: ClassVar[str] = "avss-avsbench"
    _dtype: ClassVar[type[np.floating[Any]]] = np.float32
    _padded_to: ClassVar[int] = AVSS.frames

    def reduce(self, sums: Floats) -> dict[str, Floats]:
        """As in semantic/1, with the published means "without background"."""
        values = super().reduce(sums)
        iou, f, _ = _class_values(sums)
        return {**values, "mIoU_noBg": iou[..., :-1].mean(axis=-1), "F_noBg": f[..., :-1].mean(axis=-1)}


@dataclass(frozen=True)
class AVSSCombo(AVSSAVSBench):
    """avss-combo: evaluator of COMBO (Yang et al., CVPR 2024) on AVSS: avss-avsbench without padded frames.

    ``mIoU_reported`` and ``F_reported`` are rounded to four decimals as in the evaluator's output.
    """

    name: ClassVar[str] = "avss-combo"
    _padded_to: ClassVar[int] = 0

    def reduce(self, sums: Floats) -> dict[str, Floats]:
        """As in avss-avsbench, with the rounded values."""
        values = super().reduce(sums)
        return {**values, **{f"{name}_reported": values[name].round(4) for name in self.main}}


@dataclass(frozen=True)
class SemanticConfusion(Protocol):
    """confusion: IoU from one confusion matrix over all pixels of the split, as in semantic segmentation.

    mIoU: mean over the classes that occur in the predictions or the ground truth; mIoU_no_background: the
    same without class 0. pixel_accuracy: share of correctly labelled pixels. Padded frames are ignored.
    """

    name: ClassVar[str] = "confusion"
    main: ClassVar[tuple[str, ...]] = ("mIoU", "pixel_accuracy")

    @property
    def count(self) -> Counter:
        """Pixel counts (T,3,71)."""
        return count_labels

    def tally(self, frames: Frames) -> Tally:
        """One row per clip: pixels of both maps, of the prediction and of the ground truth, 71 each."""
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
    """IoU and F of each class, 0 for classes without a frame, whose sums are 0, and the frames."""
    iou, f, frames = _thirds(sums)
    counted = np.maximum(frames, 1)
    return iou / counted, f / counted, frames


def _mean_seen(values: Floats, frames: Floats) -> Floats:
    """Mean over the classes with frames; the values of other classes must be 0."""
    return ratio(values.sum(axis=-1), (frames > 0).sum(axis=-1).astype(np.float64))
