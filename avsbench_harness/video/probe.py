"""Facts of a video file, from its packets and its first frame."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsbench_harness.errors import UsageError
from avsbench_harness.video.frames import read_frames
from avsbench_harness.video.media import (
    DEFAULT_RATE,
    Media,
    open_video,
    packets,
    picture_stream,
    sound_stream,
)

#: Longest time between two packets of a stream, seconds; a longer one is a damaged time stamp.
MAX_JUMP = 3600

if TYPE_CHECKING:
    from av.container import InputContainer


def probe(path: Path) -> Media:
    """Read a file's packets without decoding them, and decode its first frame.

    The lengths in headers are not used: they are wrong in files that are cut or still being written.

    Raises:
        UsageError: it cannot be opened, has no picture, or no frame can be decoded.
    """
    with open_video(path) as container:
        picture, sound = picture_stream(container, path), sound_stream(container)
        aspect = picture.sample_aspect_ratio
        rate = picture.average_rate or picture.guessed_rate or DEFAULT_RATE
        sound_rate = sound.codec_context.sample_rate if sound is not None else None
        if sound_rate == 0:
            sound, sound_rate = None, None
        extents = _extents(container, [picture] if sound is None else [picture, sound])
    shown, heard = extents["video"], extents["audio"]
    zero = shown.first or Fraction(0)
    # Streams without time stamps last as long as their number of frames.
    seconds = shown.count / rate if shown.end is None else shown.end - zero
    media = Media(
        path=path,
        width=0,
        height=0,
        rate=rate,
        seconds=max(seconds, 1 / rate),
        zero=zero,
        sound_rate=sound_rate,
        sound_end=max(Fraction(0), (heard.end or zero) - zero),
    )
    with closing(read_frames(media)) as frames:
        frame = next(frames, None)
        if frame is None:
            raise UsageError(f"No frame of {path} can be decoded; the file is damaged or incomplete.")
        pixels = frame.pixels()
    if aspect in (None, 0, 1):
        aspect = None
    elif frame.turned:
        aspect = 1 / aspect
    return replace(media, width=pixels.shape[1], height=pixels.shape[0], aspect=aspect)


@dataclass
class _Extent:
    """First and last time of a stream, seconds, without time stamps that are damaged or wrap around."""

    first: Fraction | None = None
    end: Fraction | None = None
    count: int = 0

    def add(self, start: Fraction, length: Fraction) -> None:
        """Add a packet; packets come in the order of the file."""
        if self.end is None or self.first is None or start < self.end - MAX_JUMP:
            self.first, self.end = start, start + length
        elif start < self.end + MAX_JUMP:
            self.first, self.end = min(self.first, start), max(self.end, start + length)


def _extents(container: InputContainer, streams: list[Any]) -> dict[str, _Extent]:
    """The extents of the streams by their kind."""
    extents = {"video": _Extent(), "audio": _Extent()}
    for packet in packets(container, streams):
        extent = extents[packet.stream.type]
        extent.count += 1
        if packet.pts is None or packet.time_base is None:
            continue
        length = packet.duration * packet.time_base if packet.duration else Fraction(0)
        if not length and packet.stream.type == "video":
            length = 1 / (packet.stream.average_rate or DEFAULT_RATE)
        extent.add(packet.pts * packet.time_base, length)
    return extents
