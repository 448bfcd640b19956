"""Metrics of predictions under audio conditions, each a named, versioned protocol.

``b`` is the predicted mask of a frame (p > 0.5; avss: any class but the background), and its area the share
of the frame's pixels, in [0, 1]. Means are over the frames of a clip, then over clips. Intervals are 95 %
percentile intervals over 2,000 resamples of the clips; clips are resampled together under all conditions
(paired bootstrap).

J and F under a condition, of the predictions against the clip's own masks, are those of the canonical
protocol; under negative audio (silence, noise, swapped) lower is better (AVSBench-Robust, arXiv 2502.00358).
The group metrics of that paper are left out: their formula is not published.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from avsbench_harness.robustness.clip_values import ClassAreas, ClipValues
from avsbench_harness.robustness.conditions import CLEAN, Condition
from avsbench_harness.scoring.bootstrap import percentile_interval, resampled_sums
from avsbench_harness.scoring.scores import Floats, Reduce
from avsbench_harness.tasks import CLASSES

#: Thresholds of the predicted area, 0, 0.05, ..., 1.
THRESHOLDS: Floats = np.arange(21) / 20


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; ``None`` if undefined, or with fewer than two clips."""

    value: float | None
    interval: tuple[float, float] | None


def false_positive_rate(values: ClipValues) -> Floats:
    """fpr/1: false-positive rate, the area of b, in [0, 1]; 0 is best.

    Formula: FPR = |b| / |frame|, of every frame. Under silence and noise nothing sounds, so that every
    predicted pixel is wrong. Source: AVSBench-Robust (arXiv 2502.00358).
    """
    found: Floats = np.nanmean(values.areas, axis=1)
    return found


def null_s(values: ClipValues) -> Floats:
    """s/1: S of the null set of Ref-AVS, in [0, 1]; 0 is best.

    Formula: S = sqrt(predicted pixels / pixels), over all frames of a clip. Source: Wang et al., "Ref-AVS"
    (ECCV 2024), there of expressions without an object.
    """
    found: Floats = np.sqrt(np.nanmean(values.areas, axis=1))
    return found


def auc_n(values: ClipValues) -> Floats:
    """auc_n/1: area under the curve of pIA (predicted image area), in [0, 0.975]; 0.975 is best.

    Formula: share of frames with pIA < t at t = 0, 0.05, ..., 1, integrated by the trapezoidal rule. Empty
    masks have 0.975, as no area is below 0. Source: Juanola et al., "A critical assessment of visual sound
    source localization models including negative audio" (arXiv 2410.01020), there of single frames.
    """
    curve = _pia(values.areas)
    area: Floats = ((curve[:, 1:] + curve[:, :-1]) / 2 * np.diff(THRESHOLDS)).sum(axis=1)
    return area


def pia_curve(values: ClipValues) -> Floats:
    """Return the curve of ``auc_n/1``, (21,): the share of frames with pIA < t, the mean over clips."""
    curve: Floats = _pia(values.areas).mean(axis=0)
    return curve


def _pia(areas: Floats) -> Floats:
    """Return the share of frames of each clip whose area is below each threshold, (N,21)."""
    below = areas[:, :, None] < THRESHOLDS  # never for NaN
    shares: Floats = below.sum(axis=1) / np.isfinite(areas).sum(axis=1)[:, None]
    return shares


def sensitivity(values: ClipValues) -> Floats:
    """sensitivity/1: audio sensitivity, in [0, 1]; 0 if the audio has no effect on the masks.

    Formula: 1 - IoU(b under clean, b under the condition), of every frame; IoU is 1 where both are empty. In
    avss a pixel is in the intersection if both predictions give it the same class, and in the union if either
    gives it one. It needs no ground truth, and says nothing about which prediction is better. Source: this
    project.
    """
    return 1 - values.overlaps


@dataclass(frozen=True)
class ClipMetric:
    """A metric that is a mean over clips.

    Attributes:
        name: name and version.
        of: values per clip.
        applies: whether it is defined under a condition.
    """

    name: str
    of: Callable[[ClipValues], Floats]
    applies: Callable[[Condition], bool]


#: The metrics of one condition.
CLIP_METRICS = (
    ClipMetric("fpr/1", false_positive_rate, lambda condition: condition.negative),
    ClipMetric("s/1", null_s, lambda condition: condition.negative),
    ClipMetric("auc_n/1", auc_n, lambda condition: condition.negative),
    ClipMetric("sensitivity/1", sensitivity, lambda condition: condition.name != CLEAN),
)

#: The metric of avss over classes.
CLASS_FPR = "class_fpr/1"


def condition_metrics(condition: Condition, values: ClipValues) -> dict[str, Estimate]:
    """Return the metrics of one condition by name."""
    found = {
        metric.name: mean_estimate(metric.of(values)) for metric in CLIP_METRICS if metric.applies(condition)
    }
    if values.classes is not None:
        found[CLASS_FPR] = _estimate([_class_sums(values.classes)], lambda sums: _class_mean(sums[0]))
    return found


def mean_estimate(values: Floats) -> Estimate:
    """Return the mean over clips (N,) with its interval."""
    return _estimate([values[:, None]], lambda sums: sums[0][..., 0] / len(values))


def class_fpr(areas: ClassAreas) -> Floats:
    """class_fpr/1: false-positive rate per class of avss, (71,) in [0, 1]; 0 is best.

    Formula: FPR_c = |pred = c and gt != c| / |gt != c|, over the pixels of all clips. The metric is the mean
    over classes 1 to 70; a class that is never predicted wrongly has 0. Source: EASE.
    """
    return _class_rates(_class_sums(areas).sum(axis=0))


def class_rates(values: ClipValues) -> dict[str, float] | None:
    """Return ``class_fpr/1`` of the classes with wrong pixels by name; ``None`` for binary tasks."""
    if values.classes is None:
        return None
    rates = class_fpr(values.classes).tolist()
    return {name: rate for name, rate in zip(CLASSES, rates, strict=True) if rate}


def _class_sums(areas: ClassAreas) -> Floats:
    """Return (N,142): wrong pixels and pixels of other classes, in units of frames."""
    return np.concatenate([areas.wrong, areas.frames[:, None] - areas.truth], axis=1)


def _class_rates(sums: Floats) -> Floats:
    wrong, others = np.split(sums, 2, axis=-1)
    rates: Floats = np.divide(wrong, others, out=np.zeros_like(wrong), where=others > 0)
    return rates


def _class_mean(sums: Floats) -> Floats:
    mean: Floats = _class_rates(sums)[..., 1:].mean(axis=-1)
    return mean


def snr_area(tables: Mapping[int, tuple[Floats, Reduce]], metric: str) -> tuple[list[float | None], Estimate]:
    """snr_area/1: the curve of a metric (J; avss: mIoU) over the SNR, and the area under it, in [0, 1].

    Formula: trapezoidal rule over the measured signal-to-noise ratios in dB, divided by their range. Areas
    over other ratios are not comparable. Source: this project.

    Args:
        tables: per SNR the sums per clip of the canonical protocol, and the function of their totals; the
            clips are the same.
        metric: the metric.

    Returns:
        The values in ascending order of the SNR, and the area, undefined with fewer than two ratios.
    """
    snrs = sorted(tables)
    sums, reduces = [tables[snr][0] for snr in snrs], [tables[snr][1] for snr in snrs]

    def curve(totals: Sequence[Floats]) -> Floats:
        values = [reduce(total)[metric] for reduce, total in zip(reduces, totals, strict=True)]
        return np.stack(np.broadcast_arrays(*values), axis=-1)

    def area(totals: Sequence[Floats]) -> Floats:
        values, steps = curve(totals), np.diff(snrs)
        total: Floats = ((values[..., 1:] + values[..., :-1]) / 2 * steps).sum(axis=-1)
        return total / (snrs[-1] - snrs[0])

    points = curve([table.sum(axis=0) for table in sums])
    known = [float(value) if np.isfinite(value) else None for value in points]
    return known, _estimate(sums, area) if len(snrs) > 1 else Estimate(None, None)


def _estimate(tables: Sequence[Floats], of: Callable[[Sequence[Floats]], Floats]) -> Estimate:
    """Return a function of the column sums of tables (N,K) with its interval over their rows."""
    value = float(of([table.sum(axis=0) for table in tables]))
    if not np.isfinite(value):
        return Estimate(None, None)
    if len(tables[0]) < 2:
        return Estimate(value, None)
    resampled = np.concatenate([np.atleast_1d(of(chunk)) for chunk in resampled_sums(list(tables))])
    return Estimate(value, percentile_interval(resampled))


def definitions() -> dict[str, str]:
    """Return the definitions of all metrics by name."""
    functions = [*(metric.of for metric in CLIP_METRICS), class_fpr, snr_area]
    texts = [inspect.getdoc(function) or "" for function in functions]
    return {text.split(":")[0]: text for text in texts}
