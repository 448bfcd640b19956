"""Encoding of an overlay video with the sound of the original, frame by frame."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from avsbench_harness.errors import AvsbError, UsageError, one_line
from avsbench_harness.files import atomic_write
from avsbench_harness.video.frames import Pixels
from avsbench_harness.video.media import Media, import_av, open_video, packets, sound_stream

#: Per suffix: FFmpeg's format, video encoders in order of preference, sound that is copied as it is, and the
#: encoder of all other sound.
_MP4_SOUND = {"aac", "mp3", "ac3", "eac3", "alac", "opus"}
_H264 = ("libx264", "libopenh264", "libvpx-vp9")
CONTAINERS: dict[str, tuple[str, tuple[str, ...], set[str], str]] = {
    ".mp4": ("mp4", _H264, _MP4_SOUND, "aac"),
    ".mov": ("mov", _H264[:2], _MP4_SOUND - {"opus"}, "aac"),
    ".mkv": ("matroska", _H264, _MP4_SOUND | {"flac", "vorbis", "pcm_s16le"}, "aac"),
    ".webm": ("webm", ("libvpx-vp9",), {"opus", "vorbis"}, "libopus"),
}

#: Time base of the output's pictures; that of MPEG.
TIME_BASE = Fraction(1, 90_000)

#: Quality of each encoder (constant rate factor) unless one is asked for, and its other options.
_OPTIONS: dict[str, tuple[int | None, dict[str, str]]] = {
    "libx264": (18, {"preset": "veryfast"}),
    "libx264rgb": (0, {"preset": "veryfast"}),
    "libopenh264": (None, {}),
    "libvpx-vp9": (30, {"b": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "1"}),
}


def check_output(path: Path, crf: int | None = None) -> None:
    """Check that a file of this name can be written with this quality.

    Raises:
        UsageError: the suffix is unknown, there is no encoder for it, or the quality is out of range.
    """
    if path.suffix.lower() not in CONTAINERS:
        raise UsageError(f"{path} must end in {', '.join(CONTAINERS)}, the formats that are written.")
    if crf is not None and not 0 <= crf <= 51:
        raise UsageError(f"--crf must be 0 (lossless) to 51, got {crf}.")
    _encoder(path, crf)


@contextmanager
def write_video(
    path: Path, media: Media, size: tuple[int, int], crf: int | None = None
) -> Iterator[VideoWriter]:
    """Open a video for writing, with the sound of another one; it appears whole or not at all.

    Sound is copied where the format of the output allows it, else encoded again.

    Args:
        path: the file to write; its suffix, one of :data:`CONTAINERS`, selects the format.
        media: the original video.
        size: (width, height) of the frames, pixels; H.264 repeats the last row and column of odd ones.
        crf: quality, lower is better; 0 keeps every pixel (H.264 in RGB, which few players show).

    Raises:
        AvsbError: a frame cannot be encoded.
    """
    av = import_av()
    with atomic_write(path) as file:
        form = CONTAINERS[path.suffix.lower()][0]
        try:
            with (
                av.open(file, "w", format=form) as container,
                closing(VideoWriter(path, media, size, crf, container)) as writer,
            ):
                yield writer
                writer.finish()
        except av.error.FFmpegError as error:
            if error.errno == errno.ENOSPC:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
            raise AvsbError(f"{path} cannot be encoded ({one_line(error, 200)}).") from error


class VideoWriter:
    """Encodes frames and muxes them with sound; see :func:`write_video`."""

    def __init__(
        self, path: Path, media: Media, size: tuple[int, int], crf: int | None, container: Any
    ) -> None:
        self._av = import_av()
        self._container = container
        self._video = self._add_picture(path, media, size, crf)
        self._sound = _Sound(path, media, container)

    def write(self, time: Fraction, pixels: Pixels) -> None:
        """Encode one frame (height,width,3), RGB; times must ascend."""
        frame = self._av.VideoFrame.from_ndarray(self._padded(pixels), format="rgb24")
        if self._video.codec_context.pix_fmt != "rgb24":
            frame = frame.reformat(format=self._video.codec_context.pix_fmt, dst_colorspace=self._colours)
        frame.pts, frame.time_base = round(time / TIME_BASE), TIME_BASE
        self._mux(self._video.encode(frame))
        self._mux(self._sound.until(time))

    def finish(self) -> None:
        """Encode what is left of picture and sound."""
        self._mux(self._video.encode(None))
        self._mux(self._sound.until(None))

    def close(self) -> None:
        """Close the original."""
        self._sound.close()

    def _add_picture(self, path: Path, media: Media, size: tuple[int, int], asked: int | None) -> Any:
        name = _encoder(path, asked)
        crf, options = _OPTIONS[name]
        crf = crf if asked is None or name == "libx264rgb" else asked
        options = options if crf is None else {**options, "crf": str(crf)}
        width, height = size
        rate = min(max(media.rate.limit_denominator(60_000), Fraction(1)), Fraction(240))
        stream = self._container.add_stream(name, rate=rate, options=options)
        self._even = name in ("libx264", "libopenh264")
        stream.width, stream.height = (width + width % 2, height + height % 2) if self._even else size
        stream.pix_fmt = "rgb24" if name == "libx264rgb" else "yuv420p"
        stream.codec_context.time_base = TIME_BASE
        # Players assume BT.709 for high definition, and BT.601 below.
        high = height >= 720
        self._colours = "ITU709" if high else "ITU601"
        if stream.pix_fmt != "rgb24":
            stream.codec_context.colorspace = 1 if high else 6
            stream.codec_context.color_range = 1
        if media.aspect is not None:
            stream.codec_context.sample_aspect_ratio = media.aspect
        return stream

    def _padded(self, pixels: Pixels) -> Pixels:
        height, width = pixels.shape[:2]
        if not self._even or (height % 2, width % 2) == (0, 0):
            return np.ascontiguousarray(pixels)
        return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")

    def _mux(self, packets: Any) -> None:
        for packet in packets:
            self._container.mux(packet)


class _Sound:
    """The packets of the original's sound for the output, in order."""

    def __init__(self, path: Path, media: Media, container: Any) -> None:
        self._media = media
        self._stack = ExitStack()
        self._next: Any = None
        self._packets: Iterator[Any] = iter(())
        if media.sound_rate is None:
            return
        _, _, copied, encoder = CONTAINERS[path.suffix.lower()]
        source = self._stack.enter_context(open_video(media.path))
        stream = sound_stream(source)
        assert stream is not None  # the media has a rate of sound
        if stream.codec_context.codec.canonical_name in copied:
            self._packets = self._copied(source, stream, container.add_stream_from_template(stream))
        else:
            self._packets = self._encoded(source, stream, self._add_encoder(container, stream, encoder))

    def until(self, time: Fraction | None) -> Iterator[Any]:
        """The next packets that start before a time; all that are left for ``None``."""
        while True:
            if self._next is None:
                self._next = next(self._packets, None)
            if self._next is None:
                return
            start = (self._next.pts or 0) * self._next.time_base
            if time is not None and start > time:
                return
            packet, self._next = self._next, None
            yield packet

    def close(self) -> None:
        """Close the original."""
        self._stack.close()

    def _copied(self, source: Any, stream: Any, target: Any) -> Iterator[Any]:
        last: int | None = None
        for packet in packets(source, stream):
            time = self._media.time(packet.pts, packet.time_base)
            if time is None or not _decodes(stream, packet):
                continue
            packet.pts -= round(self._media.zero / packet.time_base)
            packet.dts = packet.pts  # sound is not reordered
            if time < Fraction(-1, 10) or (last is not None and packet.dts <= last):
                continue
            last = packet.dts
            packet.stream = target
            yield packet

    def _add_encoder(self, container: Any, stream: Any, encoder: str) -> Any:
        assert self._media.sound_rate is not None
        channels = min(stream.codec_context.channels, 2)
        rate = 48_000 if encoder == "libopus" else min(self._media.sound_rate, 96_000)
        if encoder == "aac" and rate not in _AAC_RATES:
            rate = 48_000
        target = container.add_stream(encoder, rate=rate, layout="mono" if channels == 1 else "stereo")
        target.codec_context.bit_rate = 96_000 * channels
        return target

    def _encoded(self, source: Any, stream: Any, target: Any) -> Iterator[Any]:
        av = import_av()
        context = target.codec_context
        # Silence where the original has none, beginning at the first picture.
        options = {"async": "1", "first_pts": "0"}
        resampler = None
        for packet in chain(packets(source, stream), [None]):
            try:
                decoded = stream.decode(packet)
            except av.error.FFmpegError:
                continue
            for frame in decoded:
                frame.time_base = frame.time_base or stream.time_base
                known = self._media.time(frame.pts, frame.time_base) is not None
                frame.pts = frame.pts - round(self._media.zero / frame.time_base) if known else None
                form = (frame.format.name, frame.layout.name, frame.sample_rate)
                if resampler is None:
                    expected = form
                    resampler = av.AudioResampler(
                        context.format, context.layout, context.sample_rate, options=options
                    )
                if form == expected:
                    for resampled in resampler.resample(frame):
                        yield from target.encode(resampled)
        if resampler is not None:
            for resampled in resampler.resample(None):
                yield from target.encode(resampled)
            yield from target.encode(None)


_AAC_RATES = (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)


def _decodes(stream: Any, packet: Any) -> bool:
    """Whether a packet can be decoded; damaged ones are not copied."""
    try:
        stream.decode(packet)
    except import_av().error.FFmpegError:
        return False
    return not packet.is_corrupt


def _encoder(path: Path, crf: int | None) -> str:
    """The first video encoder for a file that this build of FFmpeg has."""
    av = import_av()
    for name in CONTAINERS[path.suffix.lower()][1]:
        wanted = "libx264rgb" if name == "libx264" and crf == 0 else name
        try:
            av.codec.Codec(wanted, "w")
        except (av.error.FFmpegError, ValueError):
            continue
        return wanted
    raise UsageError(f"This build of FFmpeg has no encoder for {path.suffix} files; write .webm or .mkv.")
