"""The strip below an overlay."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avsbench_harness.testing.videos import LOSSLESS, tone, write_test_video
from avsbench_harness.video.probe import probe
from avsbench_harness.video.sound import SoundReader
from avsbench_harness.video.strip import _CURRENT, _PADDED, _PLAYHEAD, Strip, strip_height
from avsbench_harness.video.windows import Timeline

MAN = ("man", (64, 128, 0))


@pytest.mark.parametrize(("width", "height"), [(64, 40), (640, 48), (1920, 120), (3840, 120)])
def test_heights_are_even_and_bounded(width: int, height: int) -> None:
    assert strip_height(width) == height


def test_the_waveform_and_the_current_second(tmp_path: Path) -> None:
    sound = np.concatenate([np.zeros(16_000, np.int16), tone(1, 16_000)])
    media = probe(write_test_video(tmp_path / "a.mkv", codecs=LOSSLESS, sound=sound))
    timeline = Timeline(media.seconds, 1, 5)
    strip = Strip(200, timeline, SoundReader(media, 1))
    drawn = strip.draw(Fraction(3, 2), [MAN])
    assert drawn.shape == (40, 200, 3)
    wave = drawn[18:]
    assert (wave[:, 150] == _PLAYHEAD).all()
    assert (wave[0, 100:150] == _CURRENT).all()  # second 1 of 2
    assert not (wave[0, :99] == _CURRENT).all(axis=1).any()
    thickness = [(wave[:, column] != wave[0, column]).any(axis=1).sum() for column in (50, 125)]
    assert thickness[0] <= 2
    assert thickness[1] > 8  # the tone, at half of the square-root scale


def test_labels_have_their_colours_and_are_cut_off() -> None:
    timeline = Timeline(Fraction(5), 1, 5)
    strip = Strip(200, timeline, None)
    one = strip.draw(Fraction(1), [MAN])
    assert (one[:18] == MAN[1]).all(axis=2).sum() > 50
    many = strip.draw(Fraction(1), [MAN] * 20)
    assert many.shape == one.shape
    assert (many[:18] == MAN[1]).all(axis=2).sum() < 10 * (one[:18] == MAN[1]).all(axis=2).sum()


def test_padded_predictions_are_marked() -> None:
    strip = Strip(200, Timeline(Fraction(2), 1, 5), None)
    assert not (strip.draw(Fraction(0), []) == _PADDED).all(axis=2).any()
    marked = (strip.draw(Fraction(0), [], padded=True) == _PADDED).all(axis=2)
    assert marked[-1, 10:100].all()
    assert not marked[-1, 110:].any()


def test_long_videos_are_drawn_in_pages() -> None:
    strip = Strip(300, Timeline(Fraction(90), 1, 5), None)
    heads = [
        int((strip.draw(Fraction(t), [])[-1] == _PLAYHEAD).all(axis=1).argmax()) for t in (0, 15, 30, 45)
    ]
    assert heads == [0, 150, 0, 150]


def test_narrow_videos_have_no_text() -> None:
    assert Strip(64, Timeline(Fraction(2), 1, 5), None).draw(Fraction(0), [MAN]).shape == (40, 64, 3)
