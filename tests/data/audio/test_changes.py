"""Changed recordings: powers, spectra and the front end, computed again."""

from __future__ import annotations

import hashlib
import pickle
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from avsbench_harness.data.audio.changes import Change, mix, noise
from avsbench_harness.data.audio.logmel import clip_log_mel, log_mel_examples
from avsbench_harness.data.clip import Clip
from avsbench_harness.errors import MissingDataError
from avsbench_harness.tasks import AVSS, S4, Task

RATE = 16_000


def tone(hertz: float, level: float, seconds: float = 5) -> np.ndarray:
    return level * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)


@pytest.fixture
def clips(tmp_path: Path) -> tuple[Clip, Clip]:
    """Two clips with recordings of 5 s."""
    made = []
    for name, hertz, level in (("a", 440, 0.5), ("b", 1000, 0.1)):
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, tone(hertz, level), RATE)
        made.append(Clip(name, (Path("1.png"),) * 5, (None,) * 5, path, None, name, "s4"))
    return made[0], made[1]


def recorded(clip: Clip) -> np.ndarray:
    assert clip.audio is not None
    return soundfile.read(clip.audio)[0]


@pytest.mark.parametrize("snr", [20, 10, 5, 0, -5, -10])
def test_mixtures_have_the_ratio_of_powers(snr: int) -> None:
    signal, other = tone(440, 0.5), tone(1000, 0.1)
    added = mix(signal, other, snr) - signal
    assert 10 * np.log10((signal**2).mean() / (added**2).mean()) == pytest.approx(snr, abs=1e-9)
    np.testing.assert_allclose(added / np.abs(added).max(), other / np.abs(other).max(), atol=1e-9)


def test_short_recordings_are_repeated_and_silent_ones_add_nothing() -> None:
    signal = tone(440, 0.5, 2)
    short = np.array([0.1, -0.2, 0.3])
    added = mix(signal, short, 0) - signal
    np.testing.assert_allclose(added[3:6], added[:3], atol=1e-12)
    np.testing.assert_array_equal(mix(signal, np.zeros(5), 0), signal)
    np.testing.assert_array_equal(mix(np.zeros(4), short, 0), np.zeros(4))


def test_noise_has_power_one_and_the_spectrum_of_its_colour() -> None:
    slopes = {}
    for colour in ("white", "pink"):
        values = noise(colour, 80_000, "a clip")
        assert (values**2).mean() == pytest.approx(1)
        assert abs(values.mean()) < 0.02
        density = np.abs(np.fft.rfft(values)) ** 2
        bands = [density[low : 2 * low].mean() for low in 2 ** np.arange(6, 15)]
        slopes[colour] = np.polyfit(np.arange(len(bands)), np.log2(bands), 1)[0]
    assert slopes["white"] == pytest.approx(0, abs=0.05)
    assert slopes["pink"] == pytest.approx(-1, abs=0.05)


def test_noise_is_a_function_of_the_clip() -> None:
    np.testing.assert_array_equal(noise("white", 100, "a"), noise("white", 100, "a"))
    assert not np.array_equal(noise("white", 100, "a"), noise("white", 100, "b"))
    assert not np.array_equal(noise("white", 100, "a"), noise("pink", 100, "a"))


def test_white_noise_are_sums_of_four_integers_of_a_philox_stream() -> None:
    key = struct.unpack("<2Q", hashlib.sha256(b"noise/white/a").digest()[:16])
    raw = np.random.Philox(key=np.array(key, np.uint64)).random_raw(4).tolist()
    sums = np.array([sum(struct.unpack("<4h", struct.pack("<Q", value))) for value in raw], np.float64)
    np.testing.assert_allclose(noise("white", 4, "a"), sums / np.sqrt((sums**2).mean()), rtol=1e-12)


@pytest.mark.parametrize("task", [S4, AVSS], ids=["s4", "avss"])
def test_changed_recordings_pass_the_same_front_end(clips: tuple[Clip, Clip], task: Task) -> None:
    """The log-mels are those of a file with the changed samples."""
    one, two = clips
    own, other = recorded(one), recorded(two)
    level = np.sqrt((own**2).mean())
    expected = {
        Change("silence"): np.zeros(80_000),
        Change("white"): noise("white", 80_000, "a") * level,
        Change("pink"): noise("pink", 80_000, "a") * level,
        Change("mixed", -5, {"a": two}): own
        + other * np.sqrt((own**2).mean() / ((other**2).mean() * 10**-0.5)),
        Change("shifted", 2): np.concatenate([own[48_000:], own[:48_000]]),
    }
    for change, samples in expected.items():
        examples = log_mel_examples(samples, task.frames)
        found = clip_log_mel(one, task, change=change)
        assert found.shape == (task.frames, 1, 96, 64)
        np.testing.assert_allclose(found[: len(examples)], examples, atol=1e-5)
    assert (clip_log_mel(one, task, change=Change("silence"))[:5] == np.float32(np.log(0.01))).all()


def test_log_mel_pickles_can_only_be_silenced(clips: tuple[Clip, Clip], tmp_path: Path) -> None:
    pickled = tmp_path / "clip.pkl"
    pickled.write_bytes(pickle.dumps(torch.from_numpy(clip_log_mel(clips[0], S4))))
    clip = replace(clips[0], audio=None, logmel=pickled)
    silent = clip_log_mel(clip, S4, change=Change("silence"))
    assert silent.shape == (5, 1, 96, 64)
    assert (silent == np.float32(np.log(0.01))).all()
    with pytest.raises(MissingDataError, match="'a' has a log-mel pickle but no recording, which 'white'"):
        clip_log_mel(clip, S4, change=Change("white"))
    with pytest.raises(MissingDataError, match="'a' has a log-mel pickle but no recording, which 'mixed'"):
        clip_log_mel(clips[1], S4, change=Change("mixed", 0, {"b": clip}))
