"""The picture of a clip: cut-outs of several kinds that move over a photograph or a texture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from avsbench_harness.data.avsbench.writer import Bytes
from avsbench_harness.data.mini.media import Media, Picture, class_index
from avsbench_harness.data.mini.sprites import photograph, silhouette, sprite
from avsbench_harness.data.synth import textures
from avsbench_harness.data.synth.draws import SIN, TURN, Draws
from avsbench_harness.data.synth.tracks import Mask, Track, draw_tracks, topmost
from avsbench_harness.tasks import MASK_SIZE as SIZE
from avsbench_harness.tasks import Split

# Smallest and largest radius of an object at the beginning, pixels.
_RADIUS = (26, 54)
# Largest tilt of an object (18 degrees), 4096ths of a turn.
_TILT = TURN // 20


@dataclass(frozen=True)
class Style:
    """The properties of the clips of a task or subset.

    Attributes:
        name: part of the names of the random streams.
        seconds: length; one frame per second.
        changing: whether the set of sounding objects changes; else one object sounds all the time.
        classes: whether masks hold classes: two or three objects have a class, and one without may be added.
    """

    name: str
    seconds: int
    changing: bool
    classes: bool = False


class Scene:
    """The frames of a clip and the visible objects.

    Args:
        style: the style of the clip.
        media: the media.
        split: the split.
        plan: random stream of the objects and their paths.
        paint: random stream of the background and the camera.
    """

    def __init__(self, style: Style, media: Media, split: Split, plan: Draws, paint: Draws) -> None:
        #: The cut-outs, from the bottom to the top.
        self.objects: list[Picture] = [
            _choose(media.pictures_of(split, kind), plan) for kind in _kinds(style, media.kinds(split), plan)
        ]
        self._flips = [plan.chance(1, 2) for _ in self.objects]
        self._seconds, self._split, self._paint = style.seconds, split, paint
        self._tracks, self._masks = draw_tracks(
            len(self.objects), style.seconds, plan, self._mask, radius=_RADIUS
        )

    @cached_property
    def owners(self) -> Bytes:
        """(T,SIZE,SIZE) the visible object of each pixel: 1 + its index in ``objects``, 0 for none."""
        return np.stack([topmost(masks) for masks in self._masks])

    @cached_property
    def frames(self) -> Bytes:
        """(T,SIZE,SIZE,3) RGB."""
        draws, seconds = self._paint, self._seconds
        (down, right), (top, left) = [(draws.integer(0, 3), draws.integer(0, 3)) for _ in range(2)]
        extent = SIZE + 3 + 3 * seconds
        if draws.chance(1, 2):
            scenery = photograph(draws, self._split, extent)
        else:
            scenery = textures.background(draws, extent).astype(np.uint8)
        frames = np.empty((seconds, SIZE, SIZE, 3), dtype=np.uint8)
        for t in range(seconds):
            image = scenery[top : top + SIZE, left : left + SIZE].copy()
            for index, track in enumerate(self._tracks):
                _paste(image, sprite(*self._pose(index, track, t)), track.x[t], track.y[t])
            frames[t] = image
            top, left = top + down, left + right
        return frames

    def _pose(self, index: int, track: Track, t: int) -> tuple[Path, int, bool, int]:
        """The arguments of :func:`sprite` for an object in a frame."""
        tilt = int(SIN[track.angle[t]]) * _TILT // 32767
        return self.objects[index].path, track.radius[t] // 8, self._flips[index], tilt

    def _mask(self, index: int, track: Track, t: int) -> Mask:
        mask = np.zeros((SIZE, SIZE), dtype=np.bool_)
        patch = silhouette(*self._pose(index, track, t))
        inside, visible = _overlap(len(patch), track.x[t], track.y[t])
        mask[inside] = patch[visible]
        return mask


def _kinds(style: Style, kinds: list[str], draws: Draws) -> list[str]:
    """Draw the kinds of a clip, from the bottom to the top."""
    if not style.classes:
        count = 3 if style.changing else draws.integer(2, 3)
        return [kinds[k] for k in draws.sample(min(count, len(kinds)), len(kinds))]
    named = [kind for kind in kinds if class_index(kind) is not None]
    others = [kind for kind in kinds if class_index(kind) is None]
    chosen = [named[k] for k in draws.sample(min(draws.integer(2, 3), len(named)), len(named))]
    if others and draws.chance(1, 2):
        chosen.insert(draws.integer(0, len(chosen)), others[draws.integer(0, len(others) - 1)])
    return chosen


def _choose(pictures: list[Picture], draws: Draws) -> Picture:
    return pictures[draws.integer(0, len(pictures) - 1)]


def _paste(image: Bytes, patch: Bytes, x: int, y: int) -> None:
    """Blend a sprite into an image (SIZE,SIZE,3) at a centre in 16ths of a pixel."""
    inside, visible = _overlap(len(patch), x, y)
    part = patch[visible].astype(np.uint16)
    behind = (image[inside] * (255 - part[..., 3:]) + 127) // 255  # at most 65,152 before the division
    image[inside] = np.minimum(part[..., :3] + behind, 255)


def _overlap(side: int, x: int, y: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of the image that a sprite covers, and the part of the sprite that is inside of it."""
    inside, visible = [], []
    for centre in (y, x):
        start = centre // 16 - side // 2
        first, last = max(start, 0), min(start + side, SIZE)
        inside.append(slice(first, last))
        visible.append(slice(first - start, last - start))
    return (inside[0], inside[1]), (visible[0], visible[1])
