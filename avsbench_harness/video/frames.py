"""Decoded frames of a video as RGB arrays, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.errors import UsageError
from avsbench_harness.video.media import MAX_PIXELS, Damage, Media, decode, open_video, picture_stream

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class VideoFrame:
    """One frame.

    Attributes:
        time: seconds after the first picture.
        pixels: converts the frame to (H,W,3) uint8 RGB as displayed.
        turned: whether it is displayed rotated by a quarter of a turn.
    """

    time: Fraction
    pixels: Callable[[], Pixels] = field(repr=False)
    turned: bool = False


def read_frames(media: Media, damage: Damage | None = None) -> Generator[VideoFrame, None, None]:
    """Yield the frames of a video in order; parts that are damaged are left out.

    Args:
        media: the file.
        damage: counts the packets that cannot be decoded.

    Raises:
        UsageError: frames have more than :data:`.media.MAX_PIXELS` pixels.
    """
    last: Fraction | None = None
    shown: list[tuple[int, int]] = []
    damage = damage or Damage()
    with open_video(media.path) as container:
        stream = picture_stream(container, media.path)
        stream.thread_type = "AUTO"
        for decoded in decode(container, stream, damage):
            damage.packets += bool(decoded.is_corrupt)
            if decoded.width * decoded.height > MAX_PIXELS:
                raise UsageError(
                    f"{media.path} has frames of {decoded.width} x {decoded.height} pixels, more than "
                    f"{MAX_PIXELS >> 20} million; make it smaller first."
                )
            time = media.time(decoded.pts, decoded.time_base or stream.time_base)
            if time is None:
                time = last + 1 / media.rate if last is not None else Fraction(0)
            if last is not None and time <= last:  # damaged or repeated time stamps
                continue
            last = time
            shown = shown or [(decoded.width, decoded.height)]
            yield VideoFrame(time, _Picture(decoded, shown[0]), turned=_turns(decoded) % 2 == 1)


@dataclass(frozen=True)
class _Picture:
    """A decoded frame that is converted when it is called; later frames take the size of the first."""

    decoded: Any
    size: tuple[int, int]

    def __call__(self) -> Pixels:
        width, height = self.size
        pixels = self.decoded.to_ndarray(format="rgb24", width=width, height=height)
        turns = _turns(self.decoded)
        return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _turns(decoded: Any) -> int:
    """Quarter turns, counter-clockwise, with which a frame is displayed."""
    return int(round(decoded.rotation / 90) % 4)


def frames_at(frames: Iterable[VideoFrame], times: Iterable[Fraction]) -> Iterator[Callable[[], Pixels]]:
    """Yield for each time the ``pixels`` of the frame that is displayed then.

    Before the first frame it is the first one, after the last frame the last one.

    Args:
        frames: in order.
        times: ascending, seconds.
    """
    source = iter(frames)
    current = next(source, None)
    if current is None:
        return
    following = next(source, None)
    for time in times:
        while following is not None and following.time <= time:
            current, following = following, next(source, None)
        yield current.pixels
