from __future__ import annotations

import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from avsbench_harness.data.audio.logmel import (
    EXAMPLE_SAMPLES,
    clip_log_mel,
    length_rule,
    log_mel_examples,
    mel_matrix,
    read_log_mel_pickle,
)
from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.tasks import AVSS, MS3, S4


@pytest.fixture(scope="module")
def golden(data: Path) -> dict[str, np.ndarray]:
    with np.load(data / "vggish" / "vggish_frontend.npz") as file:
        return dict(file)


def test_recording_as_published(golden):
    examples = log_mel_examples(golden["testwav_pcm"] / 32768)
    assert examples.dtype == np.float32
    np.testing.assert_allclose(examples, golden["testwav_logmel"], atol=1e-5, rtol=0)


def test_chirp_as_published(golden):
    t = np.arange(80_000) / 16_000
    pcm = np.round(16_384 * np.sin(2 * np.pi * (100 * t + 690 * t**2))).astype("<i2")
    assert zlib.crc32(pcm.tobytes()) == golden["chirp_crc32"]
    np.testing.assert_allclose(log_mel_examples(pcm / 32768), golden["chirp_logmel"], atol=1e-5, rtol=0)


def test_mel_matrix_as_published(golden):
    assert mel_matrix().shape == (257, 64)
    np.testing.assert_allclose(mel_matrix().sum(axis=0), golden["mel_matrix_colsum"], rtol=1e-9)
    assert not mel_matrix()[0].any()


def test_number_of_examples_as_published(golden):
    counts = [len(log_mel_examples(np.zeros(length))) for length in golden["silence_lengths"]]
    assert counts == golden["silence_windows"].tolist()
    assert [len(log_mel_examples(np.zeros(n))) for n in (0, EXAMPLE_SAMPLES - 1, EXAMPLE_SAMPLES)] == [
        0,
        0,
        1,
    ]


def test_silence_is_log_of_the_offset():
    np.testing.assert_allclose(log_mel_examples(np.zeros(EXAMPLE_SAMPLES)), np.log(0.01), rtol=1e-6)


def test_a_limit_on_examples_changes_nothing_else(noise):
    samples = noise(80_000)
    np.testing.assert_array_equal(log_mel_examples(samples, 2), log_mel_examples(samples)[:2])


def test_a_clip_of_full_length(write_wav, make_clip, noise):
    path = write_wav(noise(80_000))
    for task in (S4, MS3):
        examples = clip_log_mel(make_clip(path), task)
        assert examples.shape == (5, 1, 96, 64)
        assert len(np.unique(examples[:, 0, 50, 30])) == 5


@pytest.mark.parametrize("task", [S4, MS3])
def test_short_object_clips_repeat_the_last_example(write_wav, make_clip, noise, task):
    examples = clip_log_mel(make_clip(write_wav(noise(40_000))), task)
    assert examples.shape == (5, 1, 96, 64)
    assert not np.array_equal(examples[0], examples[1])
    for later in examples[2:]:
        np.testing.assert_array_equal(later, examples[1])


def test_an_object_clip_under_one_example_is_followed_by_silence(write_wav, make_clip, noise):
    examples = clip_log_mel(make_clip(write_wav(noise(8_000))), S4)
    np.testing.assert_array_equal(examples, np.repeat(examples[:1], 5, axis=0))
    assert examples[0, 0, 10].mean() > -4
    np.testing.assert_allclose(examples[0, 0, 60:], np.log(0.01), rtol=1e-6)


@pytest.mark.parametrize(("seconds", "real"), [(10, 10), (5, 5), (2.5, 2), (0.5, 0)])
def test_short_semantic_clips_end_in_zeros(write_wav, make_clip, noise, seconds, real):
    examples = clip_log_mel(make_clip(write_wav(noise(int(seconds * 16_000))), frames=10), AVSS)
    assert examples.shape == (10, 1, 96, 64)
    assert all(example.any() for example in examples[:real])
    assert not examples[real:].any()  # zero, not the -4.6 of silence


@pytest.mark.parametrize(("task", "frames"), [(S4, 5), (AVSS, 10)])
def test_long_clips_are_truncated(write_wav, make_clip, noise, task, frames):
    samples = noise(16_000 * 13)
    examples = clip_log_mel(make_clip(write_wav(samples), frames=frames), task)
    assert len(examples) == frames
    pcm = np.round(samples * 32767) / 32768  # soundfile writes full scale as 32767
    np.testing.assert_allclose(examples, log_mel_examples(pcm)[:frames], atol=0.02)


@pytest.mark.parametrize(
    ("stored", "task", "frames"), [(5, S4, 5), (3, MS3, 5), (10, AVSS, 10), (5, AVSS, 10)]
)
def test_the_published_pickle_is_used_without_a_recording(tmp_path, make_clip, stored, task, frames):
    tensor = torch.randn(stored, 1, 96, 64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    path = tmp_path / "clip.pkl"
    path.write_bytes(pickle.dumps(tensor))
    examples = clip_log_mel(make_clip(logmel=path), task)
    assert examples.shape == (frames, 1, 96, 64)
    np.testing.assert_array_equal(examples[:stored], tensor.detach().numpy())
    filler = np.zeros((1, 96, 64), np.float32) if task is AVSS else examples[stored - 1]
    for later in examples[stored:]:
        np.testing.assert_array_equal(later, filler)


def test_a_pickle_with_nan_is_refused(tmp_path, make_clip):
    path = tmp_path / "clip.pkl"
    path.write_bytes(pickle.dumps(torch.full((5, 1, 96, 64), torch.nan)))
    with pytest.raises(UsageError, match=r"clip\.pkl has values that are NaN"):
        clip_log_mel(make_clip(logmel=path), S4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda mel: torch.log(mel + 1e-6), "its lowest value is -13.816, below -4.605"),
        (lambda mel: 20 * torch.log10(mel + 0.01), "its lowest value is -40.000, below"),
        (lambda mel: torch.log1p(mel), "silence has the value 0.000 instead of -4.605"),
        (lambda mel: torch.log10(mel + 0.01), "silence has the value -2.000"),
        (lambda mel: torch.log(mel * 32768 + 0.01), "its highest value is"),
    ],
)
def test_a_pickle_of_another_front_end_is_refused(tmp_path, change, message):
    samples = np.random.default_rng(5).uniform(-1, 1, 80_000)
    samples[:8_000] = 0
    examples = torch.from_numpy(log_mel_examples(samples)).double()
    path = tmp_path / "clip.pkl"
    path.write_bytes(pickle.dumps(examples.float()))
    read_log_mel_pickle(path)
    mel = (examples.exp() - 0.01).clamp(min=0)
    mel[mel < 1e-6] = 0
    path.write_bytes(pickle.dumps(change(mel).float()))
    with pytest.raises(UsageError, match=rf"clip\.pkl was made by another front end than .*{message}"):
        read_log_mel_pickle(path)


@pytest.mark.parametrize("amplitude", [0, 1e-4, 1])
def test_values_of_the_front_end_are_accepted(tmp_path, amplitude):
    t = np.arange(80_000) / 16_000
    for wave in (np.sign(np.sin(2 * np.pi * 500 * t)), np.sin(2 * np.pi * 130 * t), np.ones(80_000)):
        examples = np.concatenate([log_mel_examples(amplitude * wave), np.zeros((5, 1, 96, 64), np.float32)])
        (tmp_path / "clip.pkl").write_bytes(pickle.dumps(torch.from_numpy(examples)))
        np.testing.assert_array_equal(read_log_mel_pickle(tmp_path / "clip.pkl"), examples)


@pytest.mark.parametrize("seconds", [1, 5, 20])
def test_problems_of_recordings_are_noted(write_wav, make_clip, noise, seconds):
    problems: list[str] = []
    path = write_wav(noise(seconds * 16_000))
    clip_log_mel(make_clip(path), S4, problems)
    assert problems == ([] if seconds == 5 else [f"lasts {seconds}.0 s, but its clip 5 s"])


def test_a_clip_without_audio_is_named(make_clip, tmp_path):
    with pytest.raises(MissingDataError, match="'a-clip' has neither"):
        clip_log_mel(make_clip(), S4)
    with pytest.raises(MissingDataError, match=r"'a-clip': there is no file .*gone\.wav"):
        clip_log_mel(make_clip(tmp_path / "gone.wav"), S4)


def test_tasks_with_equal_padding_share_a_rule():
    assert length_rule(S4) == length_rule(MS3) != length_rule(AVSS)
