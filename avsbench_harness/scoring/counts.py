"""Pixel counts per frame, from which all metrics are computed, in one pass over a clip."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from avsbench_harness.jit import compiled
from avsbench_harness.tasks import CLASSES

Bytes = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int32]


@compiled
def _count_codes(codes: Any, masks: Any, counts: Any) -> None:
    """counts[t, mask, code] += 1 over flat frames.

    Neighbouring pixels often increment the same counter, which would stall on the latency of the previous
    store; four tables used in turn hide it.
    """
    pixels = codes.shape[1]
    quarter = pixels // 4 * 4
    for t in range(codes.shape[0]):
        tables = np.zeros((4, 512), np.int32)
        for i in range(0, quarter, 4):
            for k in range(4):
                tables[k, np.int64(masks[t, i + k]) * 256 + codes[t, i + k]] += 1
        for i in range(quarter, pixels):
            tables[0, np.int64(masks[t, i]) * 256 + codes[t, i]] += 1
        for j in range(512):
            counts[t, j // 256, j % 256] = tables[0, j] + tables[1, j] + tables[2, j] + tables[3, j]


def count_codes(codes: Bytes, masks: Bytes) -> Counts:
    """Count the pixels of each code outside (0) and inside (1) of the object.

    Args:
        codes: (T,H,W) uint8.
        masks: (T,H,W) uint8 in {0,1}.

    Returns:
        (T,2,256) int32.

    Raises:
        ValueError: a mask value above 1.
    """
    if masks.max() > 1:
        raise ValueError(f"masks must hold 0 and 1, found {masks.max()}")
    frames = len(codes)
    counts = np.empty((frames, 2, 256), np.int32)
    _count_codes(_flat(codes), _flat(masks), counts)
    return counts


@compiled
def _count_labels(labels: Any, truth: Any, counts: Any) -> None:
    """Fill counts[t, (both, labels, truth), class] from flat frames with 8 labels per uint64 word.

    Label maps are mostly constant, so most words hold a single label and are counted at once. Two tables used
    in turn hide the store latency as above. The labels must be in range.
    """
    classes = counts.shape[2]
    byte = np.uint64(255)
    repeated = np.uint64(0x0101010101010101)
    for t in range(labels.shape[0]):
        tables = np.zeros((2, classes * classes), np.int32)  # at label * classes + true
        for i in range(labels.shape[1]):
            label, true = labels[t, i], truth[t, i]
            if label == (label & byte) * repeated and true == (true & byte) * repeated:
                tables[i & 1, np.int64(label & byte) * classes + np.int64(true & byte)] += 8
                continue
            for k in range(8):
                tables[k & 1, np.int64(label & byte) * classes + np.int64(true & byte)] += 1
                label >>= np.uint64(8)
                true >>= np.uint64(8)
        for ours in range(classes):
            for theirs in range(classes):
                pixels = tables[0, ours * classes + theirs] + tables[1, ours * classes + theirs]
                if pixels:
                    counts[t, 1, ours] += pixels
                    counts[t, 2, theirs] += pixels
                    if ours == theirs:
                        counts[t, 0, ours] = pixels


def count_labels(labels: Bytes, truth: Bytes) -> Counts:
    """Count the pixels of each class per frame: in both maps, in the prediction, in the ground truth.

    Args:
        labels, truth: (T,H,W) uint8 in 0..70.

    Returns:
        (T,3,71) int32.

    Raises:
        ValueError: a label above 70.
    """
    classes = len(CLASSES)
    highest = max(int(labels.max()), int(truth.max()))
    if highest >= classes:
        raise ValueError(f"labels must lie in 0 to {classes - 1}, found {highest}")
    frames = len(labels)
    counts = np.zeros((frames, 3, classes), np.int32)
    flat_labels, flat_truth = _flat(labels), _flat(truth)
    whole = flat_labels.shape[1] // 8 * 8
    if whole:
        _count_labels(_words(flat_labels[:, :whole]), _words(flat_truth[:, :whole]), counts)
    for t in range(frames):
        for label, true in zip(flat_labels[t, whole:], flat_truth[t, whole:], strict=True):
            counts[t, 1, label] += 1
            counts[t, 2, true] += 1
            counts[t, 0, label] += label == true
    return counts


def _flat(frames: Bytes) -> Bytes:
    return np.ascontiguousarray(frames).reshape(len(frames), -1)


def _words(flat: Bytes) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(flat).view(np.uint64)
