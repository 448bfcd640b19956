"""Threshold codes: one byte per pixel, lossless for the metrics of S4 and MS3.

The published F compares a float32 probability ``p`` with 255 thresholds (``p >= t_i``), the published J with
0.5 (``p > 0.5``). ``t_127`` is exactly 0.5, so these 256 comparisons have 256 possible outcomes, in the order
of the probabilities:

    code(p) = (number of i with t_i <= p) - 1 + (1 if p > 0.5 else 0)

    codes 0..126      t_code <= p < t_(code+1)
    code  127         p = 0.5
    code  128         0.5 < p < t_128
    codes 129..254    t_(code-1) <= p < t_code
    code  255         p = 1

Hence ``p >= t_i`` is ``code >= i`` for ``i <= 127`` and ``code >= i + 1`` above, and ``p > 0.5`` is
``code >= 128``. The code is not ``round(255 * p)``, which moves pixels to the wrong side of thresholds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from avsbench_harness.jit import compiled

#: The smallest code with ``p > 0.5``.
OBJECT = 128

#: The remedy for a binary mask that was stored instead of codes.
BINARY_REMEDY = "multiply a binary mask by 255, and encode probabilities (see submissions/README.md)"


def _thresholds() -> npt.NDArray[np.float32]:
    """Return ``torch.linspace(0, 1 - 1e-10, 255)`` in float32, bit for bit.

    torch adds steps to the start in the lower half, and subtracts them from the end (1.0 in float32) in the
    upper half, with a float32 step and one rounding. Ten entries differ from ``float32(i / 254)`` in the last
    bit.
    """
    step = float(np.float32(1) / np.float32(254))
    index = np.arange(255)
    return np.where(index < 127, step * index, 1 - step * (254 - index)).astype(np.float32)


#: (255,) float32: the thresholds of the published F, from 0 to 1.
THRESHOLDS: npt.NDArray[np.float32] = _thresholds()

#: (255,) int64: the smallest code that passes each threshold.
THRESHOLD_CODES: npt.NDArray[np.int64] = np.arange(255) + (np.arange(255) > 127)

#: (256,) float32: the smallest probability of each code.
EDGES: npt.NDArray[np.float32] = np.insert(THRESHOLDS, 128, np.nextafter(np.float32(0.5), np.float32(1)))


@compiled
def _encode(prob: Any, thresholds: Any, codes: Any) -> bool:
    """Fill ``codes`` (n,) uint8 from ``prob`` (n,) float32; return whether all values are in [0, 1]."""
    ok = True
    for i in range(prob.size):
        p = prob[i]
        inside = (p >= np.float32(0)) & (p <= np.float32(1))
        ok &= inside
        # Rounding changes the product by less than half a step, so k is off by at most one.
        k = int(p * np.float32(254)) if inside else 0
        if p < thresholds[k]:
            k -= 1
        elif k < 254 and p >= thresholds[k + 1]:
            k += 1
        codes[i] = k + (p > np.float32(0.5))
    return ok


def encode(prob: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Encode probabilities as threshold codes.

    Args:
        prob: any shape, floating point, in [0, 1]: after the sigmoid or softmax, not logits. It is first
            rounded to float32, the precision of the published comparisons.

    Returns:
        uint8 of the same shape.

    Raises:
        ValueError: a value is NaN or outside [0, 1], or the array is not floating point.
    """
    array = np.asarray(prob)
    if array.dtype.kind != "f":
        raise ValueError(
            f"expected floating-point probabilities, got {array.dtype}; codes need no encoding, and masks "
            "are converted with .astype('float32')"
        )
    values = np.asarray(array, dtype=np.float32, order="C")
    codes = np.empty(values.shape, np.uint8)
    if not _encode(values.reshape(-1), THRESHOLDS, codes.reshape(-1)):
        wrong = int(np.isnan(values).sum())
        if wrong:
            raise ValueError(f"{wrong} of {values.size} probabilities are NaN")
        raise ValueError(
            f"probabilities must lie in [0, 1], got {values.min():g} to {values.max():g}; "
            "apply the sigmoid first"
        )
    return codes


def looks_binary(codes: npt.NDArray[np.uint8]) -> bool:
    """Whether codes hold 0 and 1 only, as a binary mask does that was not converted to codes.

    As codes they are probabilities below 2/254, so that the predicted mask is empty. All zeros are the codes
    of an empty mask and do not count.
    """
    return bool(codes.size) and int(codes.max()) == 1


def decode(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the smallest float32 probability of each code; ``encode(decode(codes))`` equals ``codes``.

    Args:
        codes: uint8, any shape.

    Returns:
        float32 of the same shape.
    """
    if codes.dtype != np.uint8:
        raise ValueError(f"codes are uint8, got {codes.dtype}")
    return EDGES[codes]


def labels_from_scores(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Convert class scores to labels by the published rule: argmax of the softmax, lowest class on ties.

    The softmax can make scores equal that differ in their last bits; then the lower class wins, not the
    larger score.

    Args:
        scores: (..., C, H, W) float32 with at most 256 classes.

    Returns:
        (..., H, W) uint8.

    Raises:
        ValueError: a score is NaN or infinite, or the shape has no class axis.
    """
    if scores.ndim < 3 or scores.shape[-3] > 256:
        raise ValueError(f"scores must be (..., C, H, W) with at most 256 classes, got {scores.shape}")
    frames = np.ascontiguousarray(scores, dtype=np.float32).reshape(-1, *scores.shape[-3:])
    labels = np.empty((len(frames), *scores.shape[-2:]), np.uint8)
    for frame, out in zip(frames, labels, strict=True):  # one frame at a time bounds the memory
        if not np.isfinite(frame).all():
            raise ValueError("class scores contain NaN or infinity")
        weights = np.exp(frame - frame.max(axis=0))
        out[:] = (weights / weights.sum(axis=0)).argmax(axis=0)
    return labels.reshape(*scores.shape[:-3], *scores.shape[-2:])
