"""Predictions drawn onto frames: a tint and an outline inside each object; other pixels are unchanged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from avsbench_harness.data.masks import PALETTE
from avsbench_harness.tasks import CLASSES, Task
from avsbench_harness.video.frames import Pixels

#: Opacity of the tint, of 256.
TINT = 115
#: Colour of objects in s4 and ms3.
OBJECT_COLOUR = (255, 47, 179)
#: Outlines are a white ring around a ring of the object's colour, to be visible on every background.
RING = (255, 255, 255)


def colours_of(task: Task) -> NDArray[np.uint8]:
    """(C,3) uint8 RGB colour of each label: AVSBench-semantic's palette for avss."""
    if task.semantic:
        return PALETTE
    return np.array([(0, 0, 0), OBJECT_COLOUR], np.uint8)


def names_of(task: Task) -> tuple[str, ...]:
    """The name of each label."""
    return CLASSES if task.semantic else ("background", "sounding object")


class Overlay:
    """The drawing of one label map, which is applied to all frames that it is shown on.

    Args:
        labels: (H,W) uint8, 0 for the background.
        colours: (C,3) uint8 RGB colour of each label.
    """

    def __init__(self, labels: NDArray[np.uint8], colours: NDArray[np.uint8]) -> None:
        ring = max(1, round(min(labels.shape) / 360))
        self._inside = np.flatnonzero(labels)
        found = labels.ravel()[self._inside]
        colour = colours[found].astype(np.uint16)
        opacity = np.full((len(found), 1), TINT, np.uint16)
        for width, paint in ((3 * ring, None), (ring, RING)):
            at_border = _near_border(labels, width).ravel()[self._inside]
            opacity[at_border] = 256
            if paint is not None:
                colour[at_border] = paint
        self._keep, self._add = 256 - opacity, colour * opacity

    def apply(self, pixels: Pixels) -> Pixels:
        """Return a frame (H,W,3) with the labels drawn; pixels without a label keep their values."""
        drawn = pixels.copy()
        flat = drawn.reshape(-1, 3)
        flat[self._inside] = (flat[self._inside] * self._keep + self._add) >> 8
        return drawn


def _near_border(labels: NDArray[np.uint8], distance: int) -> NDArray[np.bool_]:
    """Pixels with another label within a distance, along rows, columns and diagonals."""
    size = 2 * distance + 1
    lowest: NDArray[np.uint8] = ndimage.minimum_filter(labels, size, mode="nearest")
    highest: NDArray[np.uint8] = ndimage.maximum_filter(labels, size, mode="nearest")
    border: NDArray[np.bool_] = lowest != highest
    return border
