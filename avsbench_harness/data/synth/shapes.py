"""Outlines of the kinds, and their rasterisation.

Outlines are polygons in integer coordinates, x to the right and y down; the object's radius is 1024.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from skimage import draw

from avsbench_harness.data.synth.draws import COS, SIN, TURN, Ints

#: The object's radius in the coordinates of outlines and textures.
UNIT = 1024

Polygon = list[tuple[int, int]]
Mask = NDArray[np.bool_]

_fill: Callable[..., tuple[Ints, Ints]] = draw.polygon


def _polar(radii: list[int], start: int = -TURN // 4) -> Polygon:
    """A closed polygon around the origin with corners at equal angles, starting at the top."""
    angles = [(start + TURN * i // len(radii)) % TURN for i in range(len(radii))]
    return [(r * int(COS[a]) >> 15, r * int(SIN[a]) >> 15) for r, a in zip(radii, angles, strict=True)]


def _arc(radius: int, first: int, last: int, steps: int, shift: int = 0) -> Polygon:
    """``steps`` + 1 points from one angle to another on a circle whose centre lies at x = ``shift``."""
    angles = [(first + (last - first) * i // steps) % TURN for i in range(steps + 1)]
    return [((radius * int(COS[a]) >> 15) + shift, radius * int(SIN[a]) >> 15) for a in angles]


def _mirrored(right: Polygon) -> Polygon:
    """The outline with the given right half, top to bottom, and its mirror image."""
    return right + [(-x, y) for x, y in reversed(right)]


def _flower() -> Polygon:
    return _polar([740 + (284 * int(COS[5 * TURN * i // 40 % TURN]) >> 15) for i in range(40)])


#: Polygons per shape: the first is filled, the others are holes.
OUTLINES: dict[str, list[Polygon]] = {
    "disk": [_polar([1000] * 24)],
    "star": [_polar([1024, 430] * 5)],
    "square": [[(-800, -800), (800, -800), (800, 800), (-800, 800)]],
    "heart": [
        _mirrored(
            [(0, -480), (180, -780), (470, -880), (780, -770), (930, -450), (860, -80), (560, 380), (0, 960)]
        )
    ],
    "ring": [_polar([1000] * 24), _polar([540] * 20)],
    "arrow": [_mirrored([(0, -1000), (820, -60), (330, -60), (330, 960)])],
    "leaf": [_mirrored([(0, -1024), (230, -680), (390, -320), (440, 0), (390, 320), (230, 680), (0, 1024)])],
    "cross": [_mirrored([(300, -1000), (300, -300), (1000, -300), (1000, 300), (300, 300), (300, 1000)])],
    "drop": [[(0, -1024), *[(x, y + 330) for x, y in _arc(680, -TURN // 12, 7 * TURN // 12, 16)]]],
    "gear": [_polar([1024, 1024, 720, 720] * 8, start=-TURN // 4 - TURN // 64), _polar([260] * 12)],
    "triangle": [_polar([1024] * 3)],
    "crescent": [
        _arc(1000, 3 * TURN // 20, 17 * TURN // 20, 18)
        + list(reversed(_arc(850, 17 * TURN // 80, 63 * TURN // 80, 14, shift=520)))
    ],
    "flower": [_flower()],
    "bowtie": [_mirrored([(0, -230), (960, -760), (960, 760), (0, 230)])],
}


def raster(name: str, x: int, y: int, radius: int, angle: int, size: int) -> Mask:
    """Return the pixels of a shape, (size,size) bool.

    Args:
        name: a key of ``OUTLINES``.
        x: centre, in 16ths of a pixel.
        y: centre, in 16ths of a pixel.
        radius: in 16ths of a pixel.
        angle: in 4096ths of a turn, clockwise.
        size: side of the picture in pixels.
    """
    mask: Mask = np.zeros((size, size), dtype=np.bool_)
    for filled, polygon in zip([True, False, False], OUTLINES[name], strict=False):
        points = np.array(polygon, dtype=np.int64) * radius >> 10
        columns, rows = rotate(points[:, 0], points[:, 1], angle)
        # In whole 16ths of a pixel skimage's products of coordinates are exact, so that the result does not
        # depend on fused multiply-adds of the compiler.
        pixels = _fill((rows + y) / 16, (columns + x) / 16, shape=mask.shape)
        mask[pixels] = filled
    return mask


def rotate(x: Ints, y: Ints, angle: int) -> tuple[Ints, Ints]:
    """Rotate integer points clockwise (y points down) by an angle in 4096ths of a turn."""
    cos, sin = int(COS[angle % TURN]), int(SIN[angle % TURN])
    return (x * cos - y * sin) >> 15, (x * sin + y * cos) >> 15


def rim(mask: Mask) -> Mask:
    """Return the pixels of a mask within two pixels of its edge."""
    inner = mask.copy()
    inner[2:] &= mask[:-2]
    inner[:-2] &= mask[2:]
    inner[:, 2:] &= mask[:, :-2]
    inner[:, :-2] &= mask[:, 2:]
    return mask & ~inner
