"""One clip: frames, recording and masks.

A clip consists of two parts from independent random streams: the picture (kinds, colours, sizes, paths,
depth order) and the sound (the sounding objects per second, levels, noise). The picture does not depend on
the sound, so it does not reveal the sounding object.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.data.avsbench.writer import RATE
from avsbench_harness.data.synth import shapes, sounds, textures
from avsbench_harness.data.synth.draws import Draws, Ints
from avsbench_harness.data.synth.kinds import HUES, KINDS, Kind
from avsbench_harness.data.synth.tracks import Track, draw_tracks, topmost
from avsbench_harness.tasks import MASK_SIZE as SIZE

Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]

#: One second in this number is silent.
SILENCE = 11


@dataclass(frozen=True)
class Style:
    """The properties of the clips of a task or subset.

    Attributes:
        name: part of the names of the random streams.
        seconds: length; one frame per second.
        objects: minimum and maximum number of visible objects.
        changing: whether the set of sounding objects changes; else one object sounds all the time.
        channels: number of channels of the recording.
    """

    name: str
    seconds: int
    objects: tuple[int, int]
    changing: bool
    channels: int


@dataclass(frozen=True)
class Object:
    """One object of a picture: its kind, colours and texture salt."""

    kind: Kind
    colours: tuple[Ints, Ints]
    salt: int


class Picture:
    """The frames of a clip.

    Args:
        style: the style of the clip.
        kinds: number of kinds that may occur, from the first.
        plan: random stream of the objects and their paths.
        paint: random stream of the background and the camera.
    """

    def __init__(self, style: Style, kinds: int, plan: Draws, paint: Draws) -> None:
        low, high = style.objects
        count = min(plan.integer(low, high), kinds)
        #: From the bottom to the top.
        self.objects = [_object(KINDS[k], plan) for k in plan.sample(count, kinds)]
        self.tracks, self._rasters = draw_tracks(count, style.seconds, plan, self._raster)
        self._seconds, self._paint = style.seconds, paint

    def _raster(self, index: int, track: Track, t: int) -> Flags:
        shape = self.objects[index].kind.shape
        return shapes.raster(shape, track.x[t], track.y[t], track.radius[t], track.angle[t], SIZE)

    @cached_property
    def owners(self) -> Bytes:
        """(T,SIZE,SIZE) the visible object of each pixel: 1 + its index in ``objects``, 0 for none."""
        return np.stack([topmost(rasters) for rasters in self._rasters])

    @cached_property
    def frames(self) -> Bytes:
        """(T,SIZE,SIZE,3) RGB."""
        draws, seconds = self._paint, self._seconds
        (down, right), (top, left) = [(draws.integer(0, 3), draws.integer(0, 3)) for _ in range(2)]
        scenery = textures.background(draws, SIZE + 3 + 3 * seconds)
        grain = draws.noise(SIZE * SIZE).reshape(SIZE, SIZE) // 25000
        frames = np.empty((seconds, SIZE, SIZE, 3), dtype=np.uint8)
        for t in range(seconds):
            image = scenery[top : top + SIZE, left : left + SIZE].copy()
            for i in range(len(self.objects)):
                self._paint_object(image, t, i)
            shift = (draws.integer(0, SIZE - 1), draws.integer(0, SIZE - 1))
            frames[t] = np.clip(image + np.roll(grain, shift, axis=(0, 1))[..., None], 0, 255)
            top, left = top + down, left + right
        return frames

    def _paint_object(self, image: Ints, t: int, i: int) -> None:
        """Paint the visible pixels of the i-th object in frame t."""
        thing, track = self.objects[i], self.tracks[i]
        visible = self.owners[t] == i + 1
        y, x = np.nonzero(visible)
        # From the picture's to the object's coordinates: shift, scale, rotate.
        u = (16 * x.astype(np.int64) - track.x[t]) * shapes.UNIT // track.radius[t]
        v = (16 * y.astype(np.int64) - track.y[t]) * shapes.UNIT // track.radius[t]
        u, v = shapes.rotate(u, v, -track.angle[t])
        weight = textures.TEXTURES[thing.kind.texture](u, v, thing.salt)
        image[y, x] = textures.blend(weight, *thing.colours)
        image[visible & shapes.rim(self._rasters[t][i])] //= 3


def _object(kind: Kind, draws: Draws) -> Object:
    hue = (kind.hue + draws.integer(-100, 100)) % HUES
    light = textures.colour(hue, draws.integer(190, 255), draws.integer(180, 255))
    dark = textures.colour((hue + HUES // 2) % HUES, draws.integer(60, 150), draws.integer(50, 110))
    return Object(kind, (light, dark), draws.integer(0, 1 << 20))


class Sound:
    """The recording of a clip.

    Args:
        style: the style of the clip.
        kinds: the kinds of the visible objects.
        schedule: random stream of the sounding objects per second.
        recording: random stream of the samples.
    """

    def __init__(self, style: Style, kinds: list[Kind], schedule: Draws, recording: Draws) -> None:
        #: (T,N) whether an object sounds in a second.
        self.active: Flags = _schedule(style, len(kinds), schedule)
        self._style, self._kinds, self._draws = style, kinds, recording

    @cached_property
    def samples(self) -> NDArray[np.int16]:
        """(n,channels) samples at ``RATE``."""
        draws, length = self._draws, self._style.seconds * RATE
        level = sounds.decibels(draws.integer(15, 26))
        floor, hum = level * sounds.decibels(draws.integer(18, 38)), draws.integer(0, 12)
        channels = [floor * sounds.noise_floor(length, hum, draws) for _ in range(self._style.channels)]
        for i, kind in enumerate(self._kinds):
            if self.active[:, i].any():
                voice = sounds.tone(kind.timbre, kind.register, draws.integer(-31, 31), length, draws)
                voice *= sounds.gate(self.active[:, i]) * level * sounds.decibels(draws.integer(0, 5))
                channels = [channel + voice * sounds.decibels(draws.integer(0, 3)) for channel in channels]
        return np.stack([sounds.to_pcm(channel) for channel in channels], axis=1)


def _schedule(style: Style, objects: int, draws: Draws) -> Flags:
    """(T,N) bool: the sounding objects per second, drawn until at least one sounds (and they change)."""
    while True:
        active = _sets(style, objects, draws)
        for t in range(style.seconds):
            if draws.chance(1, SILENCE):
                active[t] = False
        sets = {tuple(row) for row in active.tolist() if any(row)}
        if len(sets) > style.changing:
            return active


def _sets(style: Style, objects: int, draws: Draws) -> Flags:
    """(T,N) bool without silence: one object all the time, or a new set of 1 to 3 every second or two."""
    active = np.zeros((style.seconds, objects), dtype=np.bool_)
    if not style.changing:
        active[:, draws.integer(0, objects - 1)] = True
        return active
    for t in range(style.seconds):
        if t and draws.chance(1, 2):
            active[t] = active[t - 1]
        else:
            active[t, draws.sample(draws.integer(1, min(3, objects)), objects)] = True
    return active


class Scene:
    """A clip of the benchmark.

    Args:
        style: the style of the clip.
        split: the split.
        index: index of the clip in its split.
        seed: seed of the benchmark.
        kinds: number of kinds that may occur, from the first.
    """

    def __init__(self, style: Style, split: str, index: int, seed: int, kinds: int) -> None:
        def draws(part: str) -> Draws:
            return Draws(seed, f"{style.name}/{split}/{part}", index)

        self.picture = Picture(style, kinds, draws("plan"), draws("paint"))
        self.kinds = [thing.kind for thing in self.picture.objects]
        self.sound = Sound(style, self.kinds, draws("schedule"), draws("recording"))

    @property
    def sounding(self) -> list[Kind]:
        """The kinds that sound at some time, sorted by index."""
        kinds = [kind for i, kind in enumerate(self.kinds) if self.sound.active[:, i].any()]
        return sorted(kinds, key=lambda kind: kind.index)

    def classes(self) -> Bytes:
        """Return (T,SIZE,SIZE) class indices: kind + 1 for visible pixels of sounding objects, else 0."""
        labels = np.zeros(self.picture.owners.shape, dtype=np.uint8)
        for i, kind in enumerate(self.kinds):
            seen = self.picture.owners == i + 1
            labels[seen & self.sound.active[:, i, None, None]] = kind.index + 1
        return labels
