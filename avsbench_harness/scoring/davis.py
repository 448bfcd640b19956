"""DAVIS metrics: region J, boundary F, their recall and decay (Perazzi et al., CVPR 2016; DAVIS 2017).

They differ from AVSBench's metrics of the same names: a frame with an empty ground truth scores 1 or 0, and F
compares boundaries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from avsbench_harness.jit import compiled
from avsbench_harness.scoring.counts import Bytes
from avsbench_harness.scoring.protocol import Counter, Frames, Protocol
from avsbench_harness.scoring.scores import Floats, Tally, ratio
from avsbench_harness.submission.codes import OBJECT

Array = npt.NDArray[Any]

#: Boundary tolerance as a fraction of the image diagonal.
BOUNDARY_TOLERANCE = 0.008


@compiled
def _boundary(mask: Any, out: Any) -> int:
    """Mark the pixels that differ from their right, lower or lower right neighbour; return their number.

    The image border is not a boundary, so a mask that fills the frame has no boundary pixels.
    """
    height, width = mask.shape
    count = 0
    for y in range(height):
        for x in range(width):
            right, down = min(x + 1, width - 1), min(y + 1, height - 1)
            here = mask[y, x]
            edge = here != mask[y, right] or here != mask[down, x] or here != mask[down, right]
            out[y, x] = edge
            count += edge
    return count


@compiled
def _matched(of: Any, to: Any, radius: int) -> int:
    """Count the boundary pixels of ``of`` that have one of ``to`` within Euclidean distance ``radius``."""
    height, width = of.shape
    count = 0
    for y in range(height):
        for x in range(width):
            if not of[y, x]:
                continue
            found = False
            for v in range(max(0, y - radius), min(height, y + radius + 1)):
                for u in range(max(0, x - radius), min(width, x + radius + 1)):
                    if to[v, u] and (v - y) ** 2 + (u - x) ** 2 <= radius * radius:
                        found = True
                        break
                if found:
                    break
            count += found
    return count


def boundary_f(predicted: Array, truth: Array) -> float:
    """Boundary F of one frame: 2PR / (P + R) of the boundary pixels matched within a tolerance.

    P is the fraction of predicted boundary pixels near a true one, R the fraction of true boundary pixels
    near a predicted one; the tolerance is ``ceil(0.008 * diagonal)`` pixels. F is 1 if neither mask has
    boundary pixels, 0 if only one has.

    Args:
        predicted, truth: (H,W), non-zero inside the object.
    """
    maps = []
    for mask in (predicted, truth):
        edge = np.empty(mask.shape, np.uint8)
        maps.append((edge, _boundary(np.ascontiguousarray(mask != 0, dtype=np.uint8), edge)))
    (ours, our_length), (theirs, their_length) = maps
    if not our_length or not their_length:
        return float(our_length == their_length)
    radius = math.ceil(BOUNDARY_TOLERANCE * math.hypot(*truth.shape))
    precision = _matched(ours, theirs, radius) / our_length
    recall = _matched(theirs, ours, radius) / their_length
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def region_j(predicted: Array, truth: Array) -> float:
    """Region J of one frame: intersection over union, 1 if both masks are empty.

    Args:
        predicted, truth: (H,W) bool.
    """
    union = np.count_nonzero(predicted | truth)
    return np.count_nonzero(predicted & truth) / union if union else 1.0


@dataclass(frozen=True)
class Davis(Protocol):
    """davis: the DAVIS 2017 metrics on the masks p > 0.5, over all frames of a clip, in float64.

    - J and F of a clip: means over its frames of the intersection over union and of the boundary F.
    - Recall: fraction of frames above 0.5. Decay: mean over the first quarter of the frames minus the mean
      over the last; neighbouring quarters share a frame, as published.
    - All metrics are means over clips. J&F is the mean of J and F.
    """

    name: ClassVar[str] = "davis"
    main: ClassVar[tuple[str, ...]] = ("J&F", "J", "F")
    _skip: ClassVar[int] = 0  # frames ignored at either end

    @property
    def count(self) -> Counter:
        """J and F per frame, (T,2)."""
        return _metrics_of_codes

    def tally(self, frames: Frames) -> Tally:
        """One row per clip: 1, then J and F as means, recalls and decays; zeros if no frame is left."""
        ends = np.append(frames.starts, len(frames.counts))
        rows = np.full((len(frames.starts), 6), np.nan)
        for i, (start, end) in enumerate(pairwise(ends)):
            kept = frames.counts[start + self._skip : end - self._skip]
            if len(kept):
                rows[i] = np.concatenate([kept.mean(axis=0), (kept > 0.5).mean(axis=0), _decay(kept)])
        has = np.isfinite(rows[:, :1])
        names = ("J", "F", "J_recall", "F_recall", "J_decay", "F_decay")
        return Tally(
            sums=np.concatenate([has, np.nan_to_num(rows)], axis=1),
            reduce=_reduce,
            per_clip={"frames": frames.lengths, **{name: rows[:, i] for i, name in enumerate(names)}},
        )


@dataclass(frozen=True)
class DavisSemiSupervised(Davis):
    """davis-semi: davis without the first and the last frame of each clip.

    DAVIS ignores them in the semi-supervised setting, in which the mask of the first frame is given.
    """

    name: ClassVar[str] = "davis-semi"
    _skip: ClassVar[int] = 1


def frame_metrics(predicted: Array, truth: Array) -> Floats:
    """(T,2): J and F of each frame of bool masks (T,H,W)."""
    pairs = zip(predicted, truth, strict=True)
    return np.array([(region_j(ours, theirs), boundary_f(ours, theirs)) for ours, theirs in pairs])


def _metrics_of_codes(codes: Array, truth: Bytes) -> Floats:
    return frame_metrics(codes >= OBJECT, truth != 0)


def _decay(values: Floats) -> Floats:
    """Mean of the first quarter minus mean of the last quarter of (T, ...), with the published bin edges."""
    edges = (np.round(np.linspace(1, len(values), 5) + 1e-10) - 1).astype(np.uint8)
    first = values[edges[0] : edges[1] + 1]
    last = values[edges[3] : edges[4] + 1]
    difference: Floats = first.mean(axis=0) - last.mean(axis=0)
    return difference


def _reduce(sums: Floats) -> dict[str, Floats]:
    clips, j, f, j_recall, f_recall, j_decay, f_decay = np.moveaxis(sums, -1, 0)
    return {
        "J&F": ratio((j + f) / 2, clips),
        "J": ratio(j, clips),
        "F": ratio(f, clips),
        "J_recall": ratio(j_recall, clips),
        "F_recall": ratio(f_recall, clips),
        "J_decay": ratio(j_decay, clips),
        "F_decay": ratio(f_decay, clips),
    }
