"""Mixtures: levels against the tables, audibility, and independence of the picture."""

from __future__ import annotations

import csv
from collections import Counter

import numpy as np
import pytest

from avsbench_harness.data.mini.media import FOLDER, mini_media
from avsbench_harness.data.mini.scene import Style
from avsbench_harness.data.mini.sound import Voice, draw_voices, mix, samples_of
from avsbench_harness.data.synth.draws import Draws

RATE = 16000
MEDIA = mini_media()
SINGLE = Style("single", seconds=5, changing=False)
CHANGING = Style("changing", seconds=5, changing=True)
LONG = Style("long", seconds=10, changing=True, classes=True)
KINDS = ["dog", "rain", "saw"]


def levels() -> dict[str, list[float]]:
    with (FOLDER / "sounds.csv").open(encoding="utf-8", newline="") as file:
        return {row["file"]: [float(row[f"db{k}"]) for k in range(1, 6)] for row in csv.DictReader(file)}


def decibels(samples: np.ndarray) -> list[float]:
    seconds = samples.reshape(-1, RATE).astype(float) / 32768
    return [10 * np.log10(max((second**2).mean(), 1e-18)) for second in seconds]


def test_levels_of_the_table_are_those_of_the_files() -> None:
    table = levels()
    for recording in MEDIA.recordings["test"]:
        expected = table[recording.path.name]
        assert recording.levels == tuple(round(10 * value) for value in expected)
        for found, stated in zip(decibels(samples_of(recording.path)), expected, strict=True):
            assert found == pytest.approx(stated, abs=1.5) or stated < -60


@pytest.mark.parametrize("index", range(20))
def test_mixtures_have_the_stated_levels_and_silent_seconds_are_inaudible(index: int) -> None:
    table = levels()
    (voice, *others) = draw_voices(CHANGING, KINDS, [True] * 3, MEDIA, "train", Draws(1, "test", index))
    stated = table[voice.recordings[0].path.name]
    audible = [
        play and level >= max(stated) - 20.0 for play, level in zip(voice.playing, stated, strict=True)
    ]
    assert voice.audible.tolist() == audible
    assert -24 <= voice.level / 10 <= -18
    alone = mix([voice])
    assert alone.shape == (5 * RATE, 1)
    for second, (found, level) in enumerate(zip(decibels(alone[:, 0]), stated, strict=True)):
        if not voice.playing[second]:
            assert found < -100
        elif audible[second] and abs(int(alone.max())) < 31000:
            assert found == pytest.approx(voice.level / 10 + level - max(stated), abs=3)
    together = mix([voice, *others])
    assert np.abs(together.astype(int)).max() <= 32000


def test_one_object_sounds_all_the_time_in_single_source_clips() -> None:
    for index in range(30):
        (voice,) = draw_voices(SINGLE, KINDS, [True] * 3, MEDIA, "val", Draws(5, "test", index))
        assert voice.playing.all()


def test_sounding_objects_change_and_each_is_audible() -> None:
    counts = Counter()
    for index in range(60):
        voices = draw_voices(CHANGING, KINDS, [True] * 3, MEDIA, "train", Draws(2, "test", index))
        audible = np.stack([voice.audible for voice in voices])
        assert audible.any(axis=1).all()
        assert len({tuple(column) for column in audible.T.tolist()}) > 1
        counts[len(voices)] += 1
        if {"rain"} == {recording.kind for voice in voices for recording in voice.recordings}:
            assert (~audible.any(axis=0)).sum() <= 1
    assert set(counts) == {1, 2}
    assert min(counts.values()) > 10


def test_ten_seconds_have_two_recordings_of_the_same_kind() -> None:
    for index in range(10):
        voices = draw_voices(LONG, KINDS, [True, False, True], MEDIA, "test", Draws(3, "test", index))
        assert any(voice.object != 1 for voice in voices)
        for voice in voices:
            assert {recording.kind for recording in voice.recordings} == {KINDS[voice.object]}
            assert len(voice.recordings) == 2
        assert mix(voices).shape == (10 * RATE, 1)


@pytest.mark.parametrize("kinds", [["rain"] * 3, ["rain", "sneeze", "dog"]], ids=lambda kinds: kinds[1])
@pytest.mark.parametrize("style", [SINGLE, CHANGING], ids=lambda style: style.name)
def test_every_visible_object_sounds_equally_often(style: Style, kinds: list[str]) -> None:
    """No position is preferred, and no kind, whether all of its seconds are audible or few."""
    counts = Counter()
    for index in range(300):
        voices = draw_voices(style, kinds, [True] * 3, MEDIA, "train", Draws(4, "test", index))
        counts.update(voice.object for voice in voices)
    expected = sum(counts.values()) / 3
    assert sum((counts[k] - expected) ** 2 / expected for k in range(3)) < 18.4  # 1 in 10,000


def test_loud_mixtures_are_attenuated_and_not_clipped() -> None:
    recording = max(MEDIA.recordings["train"], key=lambda one: np.abs(samples_of(one.path)).max())
    loud = Voice(0, (recording,), 0, np.ones(5, dtype=np.bool_))
    mixed = mix([loud, loud])[:, 0].astype(float)
    assert np.abs(mixed).max() == 32000
    reference = samples_of(recording.path)
    assert np.corrcoef(mixed, reference)[0, 1] > 0.999
