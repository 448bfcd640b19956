"""Encoded videos with the sound of the original."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from avsbench_harness.errors import UsageError
from avsbench_harness.testing.videos import LOSSLESS, USUAL, pattern, write_test_video
from avsbench_harness.video.frames import read_frames
from avsbench_harness.video.media import Media
from avsbench_harness.video.probe import probe
from avsbench_harness.video.write import check_output, write_video

VP9 = ("libvpx-vp9", "yuv420p", "libopus")


def copy(media: Media, path: Path, crf: int | None = None) -> Media:
    """Write all frames of a video again."""
    with write_video(path, media, (media.width, media.height), crf) as writer:
        for frame in read_frames(media):
            writer.write(frame.time, frame.pixels())
    return probe(path)


def flash_and_click(path: Path, codecs: tuple[str, str, str], **options: int) -> Path:
    """A video of 25 frames per second that is white and loud from 1.2 s to 1.4 s."""
    rate = options.pop("sound_rate", 16_000)

    def picture(index: int) -> np.ndarray:
        return np.full((48, 64, 3), 255 if 30 <= index < 35 else 0, np.uint8)

    time = np.arange(3 * rate) / rate
    loud = (np.abs(time - 1.3) < 0.1) * 12_000 * np.sin(2 * np.pi * 1000 * time)
    return write_test_video(
        path, seconds=3, rate=25, codecs=codecs, picture=picture, sound=loud.astype(np.int16), sound_rate=rate
    )


def onsets(path: Path) -> tuple[float, float]:
    """The times at which the picture turns white and the sound loud, on the clock of the file."""
    with av.open(str(path)) as container:
        white = next(f.time for f in container.decode(video=0) if f.to_ndarray(format="gray").mean() > 128)
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            samples = np.abs(frame.to_ndarray().astype(float)).reshape(-1)
            scale = 32768 if frame.format.name.startswith("s16") else 1
            if (samples > 0.1 * scale).any():
                return float(white), float(frame.time + np.argmax(samples > 0.1 * scale) / frame.sample_rate)
    raise AssertionError("the sound is never loud")


@pytest.mark.parametrize(
    ("source", "codecs", "sound_rate", "target"),
    [
        ("a.mp4", USUAL, 16_000, "b.mp4"),  # copied
        ("a.mkv", LOSSLESS, 44_100, "b.mp4"),  # encoded as AAC
        ("a.mkv", LOSSLESS, 11_025, "b.webm"),  # encoded as Opus
        ("a.webm", VP9, 48_000, "b.mkv"),  # copied
        ("a.ts", USUAL, 48_000, "b.mp4"),  # does not begin at 0
        ("a.mkv", LOSSLESS, 22_050, "b.mov"),
    ],
)
def test_sound_is_in_sync_within_one_frame(
    tmp_path: Path, source: str, codecs: tuple[str, str, str], sound_rate: int, target: str
) -> None:
    path = flash_and_click(tmp_path / source, codecs, sound_rate=sound_rate)
    copy(probe(path), tmp_path / target)
    white, loud = onsets(tmp_path / target)
    assert abs(white - 1.2) < 0.03
    assert abs(white - loud) < 1 / 25


def test_quality_0_keeps_every_pixel(lossless: Path, tmp_path: Path) -> None:
    copied = copy(probe(lossless), tmp_path / "b.mkv", 0)
    frames = list(read_frames(copied))
    assert len(frames) == 20
    for index, frame in enumerate(frames):
        assert np.array_equal(frame.pixels(), pattern((64, 48))(index))


@pytest.mark.parametrize("name", ["b.mp4", "b.webm"])
def test_other_qualities_keep_colours_and_times(tmp_path: Path, name: str) -> None:
    def picture(index: int) -> np.ndarray:
        return np.full((48, 64, 3), [(200, 40, 40), (40, 200, 40), (40, 40, 200)][index % 3], np.uint8)

    times = [0.0, 0.1, 0.15, 0.7, 2.0]
    path = write_test_video(tmp_path / "a.mkv", codecs=LOSSLESS, times=times, picture=picture)
    frames = list(read_frames(copy(probe(path), tmp_path / name)))
    assert [float(frame.time) for frame in frames] == pytest.approx(times, abs=0.002)
    for index, frame in enumerate(frames):
        np.testing.assert_allclose(frame.pixels()[24, 32], picture(index)[0, 0], atol=12)


@pytest.mark.parametrize(("suffix", "size"), [("mp4", (64, 48)), ("webm", (63, 47)), ("mkv", (64, 48))])
def test_odd_sizes(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    path = write_test_video(tmp_path / "odd.mkv", size=(63, 47), codecs=LOSSLESS)
    copied = copy(probe(path), tmp_path / f"b.{suffix}")
    assert (copied.width, copied.height) == size


def test_nothing_is_left_of_a_video_that_fails(lossless: Path, tmp_path: Path) -> None:
    media = probe(lossless)
    with pytest.raises(RuntimeError), write_video(tmp_path / "b.mp4", media, (64, 48)):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_names_and_qualities_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.mp4, \.mov, \.mkv, \.webm"):
        check_output(tmp_path / "b.txt")
    with pytest.raises(UsageError, match="--crf must be 0"):
        check_output(tmp_path / "b.mp4", 52)
