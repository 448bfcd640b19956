"""Protocols of S4 and MS3: binary masks, predicted probabilities as threshold codes.

Notation: ``p`` is the predicted probability, ``b`` the predicted mask (p > 0.5), ``g`` the true mask, ``t_i``
the 255 thresholds. F-beta = (1 + beta^2) P R / (beta^2 P + R) with precision P, recall R and beta^2 = 0.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from avsbench_harness.scoring.counts import Bytes, Counts, count_codes
from avsbench_harness.scoring.protocol import Counter, Frames, Protocol
from avsbench_harness.scoring.scores import Floats, Tally, ratio
from avsbench_harness.submission.codes import OBJECT, THRESHOLD_CODES, THRESHOLDS, encode

Array = npt.NDArray[Any]

BETA2 = 0.3


@dataclass(frozen=True)
class Areas:
    """Numbers of pixels per frame.

    Attributes:
        hits: (F,255) pixels of g with p >= t_i.
        predicted: (F,255) pixels with p >= t_i.
        both: (F,) pixels of both b and g.
        active: (F,) pixels of b.
        truth: (F,) pixels of g.
    """

    hits: Array
    predicted: Array
    both: Array
    active: Array
    truth: Array

    @classmethod
    def of(cls, counts: Counts) -> Areas:
        """Compute the areas from code counts (F,2,256) by sums from the highest code down."""
        above = counts[..., ::-1].cumsum(axis=-1)[..., ::-1]
        inside, everywhere = above[:, 1], above.sum(axis=1)
        return cls(
            hits=inside[:, THRESHOLD_CODES],
            predicted=everywhere[:, THRESHOLD_CODES],
            both=inside[:, OBJECT],
            active=everywhere[:, OBJECT],
            truth=inside[:, 0],
        )


@dataclass(frozen=True)
class ObjectCanonical(Protocol):
    """object/1: mean over clips, independent of batches and their order, in float64.

    - J of a frame: |b and g| / |b or g|; if g is empty, the share of pixels with b = 0.
      J: mean over the frames of a clip, then over clips.
    - F of a frame at threshold t_i: F-beta of the mask p >= t_i. F of a clip: mean curve over its frames with
      non-empty g, then maximum over the 255 thresholds. F: mean over the clips with such a frame.
    - F_half: as F, but of the single mask p > 0.5 (the mask of J) instead of the maximum.
    - F_split: as F, but at one threshold for all clips: the best for their mean, reported as ``threshold``.
    - J_object: mean J over all frames with non-empty g. false_positive_area: mean share of pixels with b = 1
      over all frames with empty g.
    """

    name: ClassVar[str] = "object/1"
    main: ClassVar[tuple[str, ...]] = ("J", "F")

    @property
    def count(self) -> Counter:
        """Code counts (T,2,256)."""
        return count_codes

    def tally(self, frames: Frames) -> Tally:
        """One row per clip: the 9 sums of :func:`_reduce_canonical`, then the F curve of the clip."""
        areas = Areas.of(frames.counts)
        filled = areas.truth > 0
        agreement = 1 - areas.active / frames.pixels
        overlap = ratio(areas.both, areas.active + areas.truth - areas.both)
        j_frame = np.where(filled, overlap, agreement)
        j_clip = frames.per_clip(j_frame) / frames.lengths
        filled_frames = frames.per_clip(filled)
        curves = ratio(frames.per_clip(_f_of_counts(areas) * filled[:, None]), filled_frames[:, None])
        f_clip = curves.max(axis=1)
        half = _f_beta(areas.both, areas.active, areas.truth) * filled
        half_clip = ratio(frames.per_clip(half), filled_frames)
        empty_frames = frames.lengths - filled_frames
        j_object = frames.per_clip(np.where(filled, j_frame, 0))
        false_area = frames.per_clip(np.where(filled, 0, 1 - agreement))
        columns = [
            np.ones(len(j_clip)),
            j_clip,
            filled_frames > 0,
            np.nan_to_num(f_clip),
            np.nan_to_num(half_clip),
            filled_frames,
            j_object,
            empty_frames,
            false_area,
        ]
        return Tally(
            sums=np.column_stack([*columns, np.nan_to_num(curves)]).astype(np.float64),
            reduce=_reduce_canonical,
            curve=_mean_curve,
            per_clip={
                "frames": frames.lengths,
                "J": j_clip,
                "F": f_clip,
                "F_half": half_clip,
                "empty_frames": empty_frames.astype(int),
                "J_object": ratio(j_object, filled_frames),
                "false_positive_area": ratio(false_area, empty_frames),
            },
        )


def _reduce_canonical(sums: Floats) -> dict[str, Floats]:
    """The metrics from sums (..., 9 + 255)."""
    clips, j, with_object, f, half, filled, j_object, empty, area = np.moveaxis(sums[..., :9], -1, 0)
    curve = sums[..., 9:]
    best = curve.argmax(axis=-1)
    return {
        "J": ratio(j, clips),
        "F": ratio(f, with_object),
        "F_half": ratio(half, with_object),
        "F_split": ratio(curve.max(axis=-1), with_object),
        "threshold": np.where(with_object > 0, THRESHOLDS[best].astype(np.float64), np.nan),
        "J_object": ratio(j_object, filled),
        "false_positive_area": ratio(area, empty),
    }


def _mean_curve(sums: Floats) -> Floats:
    """(255,) mean F curve over the clips with an object."""
    return ratio(sums[9:], sums[2])


def _f_beta(hits: Array, predicted: Array, truth: Array) -> Floats:
    """F-beta from pixel counts: (1 + beta^2) hits / (beta^2 truth + predicted), 0 if both are 0."""
    f: Floats = (1 + BETA2) * hits / np.maximum(BETA2 * truth + predicted, BETA2)
    return np.minimum(f, 1)  # rounding can exceed 1 for a perfect frame


def _f_of_counts(areas: Areas) -> Floats:
    return _f_beta(areas.hits, areas.predicted, areas.truth[:, None])


@dataclass(frozen=True)
class AVSBench(Protocol):
    """avsbench: test scripts of AVSBench for S4 and MS3 (Zhou et al., ECCV 2022), in float32.

    - J of a batch: mean over its frames of |b and g| / (|b or g| + 1e-7); share of pixels with b = 0 if g is
      empty.
    - F of a batch: mean F-beta curve over its frames with non-empty g, then maximum over the 255 thresholds;
      0 without such a frame. P = hits / (predicted + 1e-20), R = hits / (truth + 1e-20).
    - J and F: unweighted mean over batches, including a smaller last batch. F depends on the batch size.

    The script's default is one clip per batch; the released shell script uses four.
    """

    name: ClassVar[str] = "avsbench"
    main: ClassVar[tuple[str, ...]] = ("J", "F")
    _columns: ClassVar[tuple[str, ...]] = ("J", "F")
    batch: int | None = 1

    @property
    def count(self) -> Counter:
        """Code counts (T,2,256)."""
        return count_codes

    def tally(self, frames: Frames) -> Tally:
        """One row per batch: 1, J, F, FPR."""
        areas = Areas.of(frames.counts)
        j_frame = _published_j(areas, frames.pixels)
        curves = _published_curves(areas)
        filled = areas.truth > 0
        area = areas.active.astype(np.float32) / np.float32(frames.pixels + 1e-7)
        ends = np.append(frames.starts, len(curves))
        clips = [slice(a, b) for a, b in pairwise(ends)]
        batch = self.batch or 1
        batches = [
            slice(a, ends[min(i + batch, len(clips))]) for i, a in enumerate(ends[:-1]) if i % batch == 0
        ]

        def row(part: slice) -> list[Any]:
            return [1, j_frame[part].mean(), _published_f(curves[part], filled[part]), area[part].mean()]

        rows = np.array([row(part) for part in batches], np.float64)
        own = rows if batch == 1 else np.array([row(part) for part in clips], np.float64)
        return Tally(
            sums=rows,
            reduce=self._reduce,
            per_clip={
                "frames": frames.lengths,
                **{name: own[:, i] for i, name in enumerate(("J", "F", "FPR"), 1) if name in self._columns},
            },
        )

    def _reduce(self, sums: Floats) -> dict[str, Floats]:
        count, j, f, area = np.moveaxis(sums, -1, 0)
        values = {"J": ratio(j, count), "F": ratio(f, count), "FPR": ratio(area, count)}
        return {name: values[name] for name in self._columns}


@dataclass(frozen=True)
class AVSegFormer(AVSBench):
    """avsegformer: released test script of AVSegFormer (Gao et al., AAAI 2024) on S4 and MS3.

    avsbench with two clips per batch at 512 x 512, the output size of the network; the ground truth is
    enlarged from 224 by PIL's nearest neighbour. Predictions of another size are enlarged in the same way,
    which differs from predictions made at 512; a run whose recipe names this protocol predicts at 512 too.
    """

    name: ClassVar[str] = "avsegformer"
    side: ClassVar[int | None] = 512
    batch: int | None = 2

    @property
    def count(self) -> Counter:
        """Code counts (T,2,256) at 512 x 512."""
        return _count_enlarged


@dataclass(frozen=True)
class Combo(AVSBench):
    """combo: evaluator of COMBO (Yang et al., CVPR 2024) on S4 and MS3.

    avsbench with one clip per batch, on p = channel 1 of the softmax over the scores (background, object).
    COMBO's scores are already probabilities; the second softmax maps p to about 0.27..0.73, which changes F
    but not J. ``J_reported`` and ``F_reported`` are rounded to four decimals as in the evaluator's output.
    """

    name: ClassVar[str] = "combo"
    needs_scores: ClassVar[str] = (
        "needs the two class scores before the second softmax; pass them as an array to score_object"
    )

    @property
    def count(self) -> Counter:
        """Code counts (T,2,256) from scores (T,2,H,W) float32."""
        return _count_softmax

    def _reduce(self, sums: Floats) -> dict[str, Floats]:
        values = super()._reduce(sums)
        return {**values, **{f"{name}_reported": value.round(4) for name, value in values.items()}}


@dataclass(frozen=True)
class Catr(AVSBench):
    """catr: test script of CATR (Li et al., ACM MM 2023) on S4: avsbench with one clip per batch.

    The script enlarges the mask logits of the selected query to 224 x 224 before the sigmoid.
    """

    name: ClassVar[str] = "catr"


@dataclass(frozen=True)
class RobustFPR(AVSBench):
    """robust-fpr: false-positive rate of AVSBench-Robust, with J and F of avsbench.

    FPR of a frame is the share of pixels with b = 1, regardless of the ground truth; mean over the frames of
    a batch, then over batches. It is intended for clips with mismatched audio. The released configurations
    use one or two clips per batch.
    """

    name: ClassVar[str] = "robust-fpr"
    main: ClassVar[tuple[str, ...]] = ("FPR", "J", "F")
    _columns: ClassVar[tuple[str, ...]] = ("FPR", "J", "F")


@dataclass(frozen=True)
class ObjectConfusion(Protocol):
    """confusion: IoU from one confusion matrix over all pixels of the split, as in semantic segmentation.

    IoU_object, IoU_background and their mean, mIoU. Large objects have more weight than in J.
    """

    name: ClassVar[str] = "confusion"
    main: ClassVar[tuple[str, ...]] = ("mIoU", "IoU_object")

    @property
    def count(self) -> Counter:
        """Code counts (T,2,256)."""
        return count_codes

    def tally(self, frames: Frames) -> Tally:
        """One row per clip: pixels of both masks, of the prediction, of the ground truth, and in total."""
        areas = Areas.of(frames.counts)
        sums = frames.per_clip(
            np.column_stack([areas.both, areas.active, areas.truth, np.full(len(areas.both), frames.pixels)])
        )
        return Tally(sums, _reduce_confusion, {"frames": frames.lengths, **_reduce_confusion(sums)})


def _reduce_confusion(sums: Floats) -> dict[str, Floats]:
    both, active, truth, pixels = np.moveaxis(sums, -1, 0)
    union = active + truth - both
    foreground = ratio(both, union)
    background = ratio(pixels - union, pixels - both)
    return {
        "mIoU": np.nanmean(np.stack([foreground, background]), axis=0),
        "IoU_object": foreground,
        "IoU_background": background,
    }


def _published_j(areas: Areas, pixels: int) -> npt.NDArray[np.float32]:
    """(F,) float32: J of each frame as in AVSBench's code."""
    union = (areas.active + areas.truth - areas.both).astype(np.float32)
    overlap = areas.both.astype(np.float32) / (union + np.float32(1e-7))
    agreement = (pixels - areas.active).astype(np.float32) / np.float32(pixels)
    j: npt.NDArray[np.float32] = np.where(areas.truth > 0, overlap, agreement)
    return j


def _published_curves(areas: Areas) -> npt.NDArray[np.float32]:
    """(F,255) float32: F at each threshold, with the order of operations of AVSBench's code."""
    hits = areas.hits.astype(np.float32)
    precision = hits / (areas.predicted.astype(np.float32) + np.float32(1e-20))
    recall = hits / (areas.truth.astype(np.float32)[:, None] + np.float32(1e-20))
    with np.errstate(invalid="ignore"):
        f = np.float32(1 + BETA2) * precision * recall / (np.float32(BETA2) * precision + recall)
    curves: npt.NDArray[np.float32] = np.nan_to_num(f)
    return curves


def _published_f(curves: npt.NDArray[np.float32], filled: npt.NDArray[np.bool_]) -> float:
    """F of a batch: sequential float32 sum over the frames with non-empty g, mean, maximum."""
    if not filled.any():
        return 0.0
    total = np.add.accumulate(curves[filled])[-1]
    return float((total / np.float32(filled.sum())).max())


def _count_enlarged(predicted: Array, truth: Bytes) -> Counts:
    return count_codes(resize_nearest(predicted, 512), resize_nearest(truth, 512))


def _count_softmax(scores: Array, truth: Bytes) -> Counts:
    weights = np.exp(scores - scores.max(axis=1, keepdims=True), dtype=np.float32)
    return count_codes(encode(weights[:, 1] / weights.sum(axis=1)), truth)


def resize_nearest(frames: Bytes, side: int) -> Bytes:
    """Nearest-neighbour resize as in PIL: the source pixel at the centre of each target pixel.

    Args:
        frames: (T,H,W).
        side: height and width of the result.

    Returns:
        (T,side,side).
    """
    rows, columns = (((np.arange(side) + 0.5) * (size / side)).astype(int) for size in frames.shape[1:])
    resized: Bytes = frames.take(columns, axis=2).take(rows, axis=1)
    return resized
