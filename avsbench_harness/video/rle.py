"""Masks as run lengths in the format of COCO, and label maps as COCO annotations.

Runs are counted down the columns, starting with a run of zeros. A count is written as the difference to the
count before the last one, in groups of 5 bits, lowest first, with a sixth bit for "more" and 48 added to each
(``maskApi.c`` of cocodataset/cocoapi).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.errors import UsageError


def counts_of(mask: NDArray[Any]) -> list[int]:
    """The lengths of the runs of a mask (H,W): zeros, ones, zeros and so on, down the columns."""
    flat = np.asarray(mask, dtype=bool).T.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return [0, *counts] if flat.size and flat[0] else counts


def encode_mask(mask: NDArray[Any]) -> dict[str, Any]:
    """A mask (H,W) as COCO's compressed run lengths: ``{"size": [H, W], "counts": text}``."""
    counts = counts_of(mask)
    text = []
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            group, value = value & 0x1F, value >> 5
            more = value != -1 if group & 0x10 else value != 0
            text.append(chr(48 + (group | 0x20 * more)))
    return {"size": [int(side) for side in np.shape(mask)], "counts": "".join(text)}


def decode_mask(value: dict[str, Any]) -> NDArray[np.bool_]:
    """The mask (H,W) of COCO's compressed run lengths.

    Raises:
        UsageError: the runs do not fill the size.
    """
    height, width = value["size"]
    counts: list[int] = []
    number = shift = 0
    for mark in value["counts"].encode():
        group = mark - 48
        number |= (group & 0x1F) << shift
        shift += 5
        if group & 0x20:
            continue
        if group & 0x10:
            number -= 1 << shift
        counts.append(number + counts[-2] if len(counts) > 2 else number)
        number = shift = 0
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise UsageError(f"The run lengths do not fill a mask of {height} x {width} pixels.")
    ones = np.arange(len(counts)) % 2 == 1
    return np.repeat(ones, counts).reshape(width, height).T


def coco_annotations(labels: NDArray[np.uint8]) -> list[dict[str, Any]]:
    """One COCO annotation per class in a label map (H,W), without ids and image.

    Each has ``category_id``, ``segmentation``, ``area`` (pixels), ``bbox`` [x, y, width, height] and
    ``iscrowd`` 0.
    """
    found = []
    for label in np.unique(labels[labels > 0]).tolist():
        mask = labels == label
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        left, top = int(columns[0]), int(rows[0])
        found.append(
            {
                "category_id": label,
                "segmentation": encode_mask(mask),
                "area": int(mask.sum()),
                "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
                "iscrowd": 0,
            }
        )
    return found
