"""Small videos with sound for tests and examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.video.media import import_av

#: Codecs that keep every pixel and every sample.
LOSSLESS = ("libx264rgb", "rgb24", "pcm_s16le")
#: Codecs of most videos.
USUAL = ("libx264", "yuv420p", "aac")


def pattern(size: tuple[int, int], seed: int = 0) -> Callable[[int], NDArray[np.uint8]]:
    """A picture of coloured squares that moves by 2 pixels per frame.

    Args:
        size: (width, height).
        seed: of the colours.
    """
    width, height = size
    squares = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    picture = np.kron(squares, np.ones((8, 8, 1), np.uint8))[:height, :width]
    return lambda index: np.ascontiguousarray(np.roll(picture, 2 * index, axis=1))


def tone(seconds: float, rate: int, hertz: float = 440.0) -> NDArray[np.int16]:
    """A tone at a quarter of full scale."""
    time = np.arange(round(seconds * rate)) / rate
    return np.round(8192 * np.sin(2 * np.pi * hertz * time)).astype(np.int16)


def write_test_video(
    path: Path,
    *,
    seconds: float = 2.0,
    size: tuple[int, int] = (64, 48),
    rate: int = 10,
    codecs: tuple[str, str, str] = USUAL,
    times: Sequence[float] | None = None,
    picture: Callable[[int], NDArray[np.uint8]] | None = None,
    sound: NDArray[np.int16] | None = None,
    sound_rate: int = 16_000,
    silent: bool = False,
    rotation: int = 0,
) -> Path:
    """Write a video of a moving pattern with a tone.

    Args:
        path: the file; its suffix selects the format.
        seconds: length.
        size: (width, height), pixels.
        rate: frames per second.
        codecs: video codec, its pixel format, and audio codec.
        times: of the frames, seconds, instead of a constant rate.
        picture: makes a frame (height,width,3) from its number; by default :func:`pattern`.
        sound: samples (n,) or (channels,n); by default :func:`tone`.
        sound_rate: samples per second.
        silent: leave the sound out.
        rotation: in the file's metadata, degrees counter-clockwise.
    """
    av = import_av()
    picture = picture or pattern(size)
    sound = np.atleast_2d(tone(seconds, sound_rate) if sound is None else sound)
    layout = "mono" if len(sound) == 1 else "stereo"
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "crf": "0" if codecs[0] == "libx264rgb" else "20", "g": "10"}
        video = container.add_stream(codecs[0], rate=rate, options=options if "264" in codecs[0] else {})
        video.width, video.height = size
        video.pix_fmt = codecs[1]
        if times is not None:
            video.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            video.set_display_rotation(rotation)
        audio = None if silent else container.add_stream(codecs[2], rate=sound_rate, layout=layout)
        moments = times or [index / rate for index in range(round(seconds * rate))]
        for index, moment in enumerate(moments):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24").reformat(format=codecs[1])
            frame.time_base = Fraction(1, 1000) if times is not None else Fraction(1, rate)
            frame.pts = round(moment / frame.time_base)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is None:
            return path
        for start in range(0, sound.shape[1], 1024):
            part = np.ascontiguousarray(sound[:, start : start + 1024])
            block = av.AudioFrame.from_ndarray(part, format="s16p", layout=layout)
            block.sample_rate, block.pts, block.time_base = sound_rate, start, Fraction(1, sound_rate)
            container.mux(audio.encode(block))
        container.mux(audio.encode(None))
    return path
