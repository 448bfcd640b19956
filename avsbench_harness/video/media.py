"""Video files: opening them, and facts of their streams.

FFmpeg (through PyAV) reads the files. Only formats that hold one recording are accepted: playlists and other
formats that open further files are refused, because a file may come from a stranger.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsbench_harness.errors import UsageError, one_line

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

#: Names of FFmpeg's demuxers that are accepted.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,obu,ivf,flv,live_flv,asf,"
    "ogg,gif,apng,mxf,dv,nut,rm,wtv,yuv4mpegpipe,wav,w64,mp3,aac,flac,aiff,caf,ac3,eac3,amr"
)

#: Largest frame that is decoded, pixels.
MAX_PIXELS = 2**26

#: Frame rate of files that state none, frames per second.
DEFAULT_RATE = Fraction(25)


@dataclass
class Damage:
    """Counts the parts of a file that cannot be decoded."""

    packets: int = 0


@dataclass(frozen=True)
class Media:
    """Facts of a video file. All times are relative to the first picture.

    Attributes:
        path: the file.
        width, height: of the frames as displayed, after rotation, pixels.
        rate: average number of frames per second.
        seconds: time of the end of the picture.
        zero: time of the first picture in the file's own clock, seconds.
        sound_rate: samples per second; ``None`` without sound.
        sound_end: time of the end of the sound, seconds; 0 without sound.
        aspect: width of a pixel by its height; ``None`` for squares.
    """

    path: Path
    width: int
    height: int
    rate: Fraction
    seconds: Fraction
    zero: Fraction
    sound_rate: int | None
    sound_end: Fraction
    aspect: Fraction | None = None

    def time(self, pts: int | None, time_base: Fraction | None) -> Fraction | None:
        """The time of a time stamp of the file, seconds; ``None`` if it is missing or beyond the end."""
        if pts is None or time_base is None:
            return None
        time = pts * time_base - self.zero
        return time if time <= max(self.seconds, self.sound_end) + 1 else None


def import_av() -> Any:
    """Import and return PyAV.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise UsageError(
            'Reading and writing videos needs PyAV; `pip install "avsbench-harness[video]"` installs it.'
        ) from None
    av.logging.set_level(None)  # FFmpeg's own messages do not name the file
    return av


@contextmanager
def open_video(path: Path) -> Iterator[InputContainer]:
    """Open a file for reading.

    Raises:
        UsageError: it is missing, not a regular file, empty, or of no known format.
    """
    av = import_av()
    _check_file(path)
    try:
        container = av.open(
            f"file:{path}",
            options={"format_whitelist": FORMATS, "protocol_whitelist": "file"},
            metadata_errors="replace",
        )
    except av.error.FFmpegError as error:
        raise UsageError(
            f"{path} cannot be read as a video: it is of another format, damaged or incomplete (FFmpeg: "
            f"{_reason(error)})."
        ) from None
    with container:
        yield container


def picture_stream(container: InputContainer, path: Path) -> VideoStream:
    """The first video stream that is not the cover picture of a recording.

    Raises:
        UsageError: there is none.
    """
    for stream in container.streams.video:
        if not stream.disposition & type(stream.disposition).attached_pic:
            return stream
    if container.streams.audio:
        raise UsageError(f"{path} has sound but no picture; segmentation needs both.")
    raise UsageError(f"{path} has no picture.")


def sound_stream(container: InputContainer) -> AudioStream | None:
    """The first audio stream that can be decoded; ``None`` without one."""
    return next((stream for stream in container.streams.audio if stream.codec_context is not None), None)


def packets(container: InputContainer, streams: Any) -> Iterator[Any]:
    """The packets of streams up to the end, or to the place from which on the file cannot be read."""
    av = import_av()
    source = container.demux(streams)
    while True:
        try:
            packet = next(source, None)
        except (av.error.FFmpegError, ValueError):
            return
        if packet is None:
            return
        if packet.size:  # the last, empty packet flushes decoders; `decode(None)` does so too
            yield packet


def decode(container: InputContainer, stream: Any, damage: Damage) -> Iterator[Any]:
    """The decoded frames of a stream; packets that cannot be decoded are counted."""
    av = import_av()
    for packet in chain(packets(container, stream), [None]):  # None: the frames that the decoder holds back
        try:
            decoded = stream.decode(packet)
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            damage.packets += 1
            continue
        yield from decoded


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise UsageError(f"{path} is a folder; pass video files.")
    if not path.exists():
        raise UsageError(f"There is no file {path}.")
    if not path.is_file():
        raise UsageError(f"{path} is not a regular file.")
    if path.stat().st_size == 0:
        raise UsageError(f"{path} is empty (0 bytes); copy or download it again.")


def _reason(error: Any) -> str:
    return one_line(getattr(error, "strerror", None) or type(error).__name__, 100)
