"""Facts of a video file, from its packets and its first frame."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
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
        first, end, count = _extent(container, [picture] if sound is None else [picture, sound])
    zero = first.get("video", Fraction(0))
    # Streams without time stamps last as long as their number of frames.
    seconds = end["video"] - zero if "video" in end else count / rate
    media = Media(
        path=path,
        width=0,
        height=0,
        rate=rate,
        seconds=max(seconds, 1 / rate),
        zero=zero,
        sound_rate=sound_rate,
        sound_end=max(Fraction(0), end.get("audio", zero) - zero),
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


def _extent(
    container: InputContainer, streams: list[Any]
) -> tuple[dict[str, Fraction], dict[str, Fraction], int]:
    """First and last time of each kind of stream, and the number of packets of the video stream."""
    first: dict[str, Fraction] = {}
    end: dict[str, Fraction] = {}
    count = 0
    for packet in packets(container, streams):
        kind, stamp = packet.stream.type, packet.pts
        count += kind == "video"
        if stamp is None or packet.time_base is None:
            continue
        start = stamp * packet.time_base
        length = packet.duration * packet.time_base if packet.duration else Fraction(0)
        if not length and kind == "video":
            length = 1 / (packet.stream.average_rate or DEFAULT_RATE)
        first[kind] = min(first.get(kind, start), start)
        end[kind] = max(end.get(kind, start), start + length)
    return first, end, count
