"""Paths of moving objects, and which of them is visible at each pixel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.data.synth.draws import TURN, Draws
from avsbench_harness.tasks import MASK_SIZE as SIZE

Mask = NDArray[np.bool_]

#: Minimum percentage of an object's pixels that are visible in every frame.
VISIBLE = 40
# Minimum distance of a centre from the border, in 16ths of a pixel.
_MARGIN = 16 * 16


@dataclass(frozen=True)
class Track:
    """The path of an object: (T,) centres and radii in 16ths of a pixel, and angles."""

    x: list[int]
    y: list[int]
    radius: list[int]
    angle: list[int]


def draw_tracks(
    count: int,
    seconds: int,
    draws: Draws,
    raster: Callable[[int, Track, int], Mask],
    radius: tuple[int, int] = (23, 50),
) -> tuple[list[Track], list[list[Mask]]]:
    """Draw paths on which every object is visible in every frame.

    Args:
        count: number of objects, from the bottom to the top.
        seconds: number of frames.
        draws: the random stream.
        raster: returns the (SIZE,SIZE) mask of an object (index, track, frame).
        radius: smallest and largest radius at the beginning, pixels.

    Returns:
        The tracks, and the masks (a list of one mask per object for each frame).
    """
    shrink = 256
    while True:
        tracks = [_track(seconds, shrink, draws, radius) for _ in range(count)]
        masks = []
        for t in range(seconds):
            masks.append([raster(i, track, t) for i, track in enumerate(tracks)])
            if not _all_visible(masks[-1]):
                break
        else:
            return tracks, masks
        shrink = shrink * 31 // 32  # smaller objects always fit eventually


def topmost(masks: Sequence[Mask]) -> NDArray[np.uint8]:
    """Return the (SIZE,SIZE) index, from 1, of the topmost mask at each pixel, 0 for none."""
    owner = np.zeros(masks[0].shape, dtype=np.uint8)
    for i, mask in enumerate(masks, start=1):
        owner[mask] = i
    return owner


def _track(seconds: int, shrink: int, draws: Draws, radii: tuple[int, int]) -> Track:
    """A straight path that bounces off the borders, with rotation and a change of size."""
    radius = draws.integer(radii[0] * 16, radii[1] * 16) * shrink >> 8
    growth = draws.integer(-16, 16)
    angle, spin = draws.integer(0, TURN - 1), draws.integer(-160, 160)
    x, y = draws.integer(_MARGIN, SIZE * 16 - _MARGIN), draws.integer(_MARGIN, SIZE * 16 - _MARGIN)
    vx, vy = draws.integer(-24 * 16, 24 * 16), draws.integer(-24 * 16, 24 * 16)
    return Track(
        x=[_bounce(x + t * vx) for t in range(seconds)],
        y=[_bounce(y + t * vy) for t in range(seconds)],
        radius=[max(radius + t * growth, 8 * 16) for t in range(seconds)],
        angle=[(angle + t * spin) % TURN for t in range(seconds)],
    )


def _bounce(position: int) -> int:
    """Reflect a position on an infinite line into the picture."""
    span = SIZE * 16 - 2 * _MARGIN
    return _MARGIN + span - abs((position - _MARGIN) % (2 * span) - span)


def _all_visible(masks: Sequence[Mask]) -> bool:
    shown = np.bincount(topmost(masks).ravel(), minlength=len(masks) + 1)[1:]
    whole = [int(mask.sum()) for mask in masks]
    return all(0 < VISIBLE * area <= 100 * int(seen) for area, seen in zip(whole, shown, strict=True))
