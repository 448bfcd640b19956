"""Decoded frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avsbench_harness.errors import UsageError
from avsbench_harness.testing.videos import LOSSLESS, pattern, write_test_video
from avsbench_harness.video import frames as frames_module
from avsbench_harness.video.frames import frames_at, read_frames
from avsbench_harness.video.media import Damage
from avsbench_harness.video.probe import probe


def test_frames_have_their_pixels_and_times(lossless: Path) -> None:
    frames = list(read_frames(probe(lossless)))
    assert [float(frame.time) for frame in frames] == pytest.approx([index / 10 for index in range(20)])
    for index in (0, 7, 19):
        assert np.array_equal(frames[index].pixels(), pattern((64, 48))(index))


def test_variable_frame_rates_keep_their_times(tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.15, 0.7, 0.71, 2.0, 2.9]
    path = write_test_video(tmp_path / "variable.mkv", seconds=3, times=times)
    assert [float(frame.time) for frame in read_frames(probe(path))] == times


def test_frames_are_turned_as_displayed(tmp_path: Path) -> None:
    corner = np.zeros((48, 64, 3), np.uint8)
    corner[:16, :16] = (255, 0, 0)
    path = write_test_video(
        tmp_path / "phone.mov",
        picture=lambda index: corner,
        rotation=-90,
        codecs=("libx264", "yuv420p", "aac"),
    )
    pixels = next(read_frames(probe(path))).pixels()
    assert pixels.shape == (64, 48, 3)
    assert pixels[4, -4, 0] > 200  # a quarter turn clockwise moves the upper left corner to the upper right
    assert pixels[4, 4, 0] < 60


def test_damaged_parts_are_left_out_and_counted(tmp_path: Path) -> None:
    whole = write_test_video(tmp_path / "whole.mp4", seconds=6)
    content = bytearray(whole.read_bytes())
    middle, length = len(content) // 2, len(content) // 10
    content[middle : middle + length] = np.random.default_rng(0).bytes(length)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(content)
    damage = Damage()
    times = [float(frame.time) for frame in read_frames(probe(path), damage)]
    assert damage.packets > 0
    assert 30 < len(times) < 60
    assert times[0] == 0
    assert times[-1] == pytest.approx(5.9)
    assert times == sorted(times)


def test_the_frame_at_a_time_is_the_one_displayed_then(lossless: Path) -> None:
    moments = [Fraction(one).limit_denominator(100) for one in (-1, 0.05, 0.1, 0.5, 0.5, 1.99, 9)]
    found = list(frames_at(read_frames(probe(lossless)), moments))
    for pixels, index in zip(found, (0, 0, 1, 5, 5, 19, 19), strict=True):
        assert np.array_equal(pixels(), pattern((64, 48))(index))


def test_huge_frames_are_refused(lossless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    media = probe(lossless)
    monkeypatch.setattr(frames_module, "MAX_PIXELS", 3000)
    with pytest.raises(UsageError, match="has frames of 64 x 48 pixels"):
        next(read_frames(media))


def test_odd_sizes_are_kept(tmp_path: Path) -> None:
    path = write_test_video(tmp_path / "odd.mkv", size=(63, 47), codecs=LOSSLESS)
    assert np.array_equal(next(read_frames(probe(path))).pixels(), pattern((63, 47))(0))
