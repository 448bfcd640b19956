from __future__ import annotations

from math import gcd
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile

from avsbench_harness.data.audio import waveform
from avsbench_harness.data.audio.logmel import log_mel_examples
from avsbench_harness.data.audio.waveform import (
    SAMPLE_RATE,
    find_damage,
    find_wrong_length,
    read_audio,
    to_16k,
)
from avsbench_harness.errors import UsageError

RECORDINGS = ("sorohanro_-_solo-trumpet-06", "456440__inspectorj__bird-whistling-robin-single-13")


def test_16_bit_samples_are_divided_by_32768(write_wav):
    pcm = np.array([-32768, -1, 0, 1, 16384, 32767], np.int16)
    samples, rate = read_audio(write_wav(pcm))
    assert rate == 16_000
    assert samples.dtype == np.float64
    np.testing.assert_array_equal(samples, pcm / 32768)


def test_channels_are_averaged(write_wav):
    pcm = np.array([[100, 200], [-300, 100], [32767, 32767]], np.int16)
    samples, rate = read_audio(write_wav(pcm, 44_100))
    assert rate == 44_100
    np.testing.assert_allclose(samples * 32768, [150, -100, 32767], atol=1e-9)


@pytest.mark.parametrize(("format", "tolerance"), [("WAV", 0), ("FLAC", 0), ("OGG", 0.1)])
def test_formats(tmp_path: Path, format: str, tolerance: float):
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 32_000)
    path = tmp_path / f"tone.{format.lower()}"
    soundfile.write(path, wave, 32_000, format=format)
    samples, rate = read_audio(path)
    assert rate == 32_000
    assert len(samples) == 32_000
    np.testing.assert_allclose(samples, wave, atol=1 / 32768 + tolerance)


def test_float_samples_beyond_full_scale_are_clipped(write_wav):
    samples, _ = read_audio(write_wav(np.array([-3.0, 0.25, 1.5]), subtype="FLOAT"))
    np.testing.assert_array_equal(samples, [-1.0, 0.25, 1.0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinite_samples_are_refused(write_wav, bad: float):
    path = write_wav(np.array([0.0, bad]), subtype="FLOAT")
    with pytest.raises(UsageError, match=rf"{path.name}.*NaN or infinite"):
        read_audio(path)


def test_empty_missing_and_invalid_files_are_refused(write_wav, tmp_path: Path):
    with pytest.raises(UsageError, match=r"empty\.wav has no samples"):
        read_audio(write_wav(np.zeros(0), name="empty.wav"))
    with pytest.raises(UsageError, match=r"no recording .*absent\.wav"):
        read_audio(tmp_path / "absent.wav")
    for name, content in {"text.wav": b"hello", "nothing.ogg": b"", "cut.flac": b"fLaC\0\0"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=rf"{name} cannot be read"):
            read_audio(tmp_path / name)
    with pytest.raises(UsageError, match="cannot be read"):
        read_audio(tmp_path)


def test_a_too_long_recording_is_refused_before_decoding(write_wav, monkeypatch):
    monkeypatch.setattr(waveform, "MAX_SECONDS", 1)
    assert len(read_audio(write_wav(np.zeros(16_000)))[0]) == 16_000
    with pytest.raises(UsageError, match="lasts 2 s"):
        read_audio(write_wav(np.zeros(32_000)))


def test_16_khz_is_unchanged_and_the_shortest_recording_is_empty():
    samples = np.arange(5.0)
    assert to_16k(samples, SAMPLE_RATE) is samples
    assert len(to_16k(np.ones(2), 44_100)) == 0


@pytest.mark.parametrize("rate", [8_000, 22_050, 24_000, 48_000])
def test_a_tone_keeps_its_pitch_and_level(rate: int):
    tone = np.sin(2 * np.pi * 1_000 * np.arange(rate) / rate)
    resampled = to_16k(tone, rate)
    assert abs(len(resampled) - 16_000) <= 1
    middle = slice(2_000, 14_000)
    expected = np.sin(2 * np.pi * 1_000 * np.arange(len(resampled)) / 16_000)
    np.testing.assert_allclose(resampled[middle], expected[middle], atol=2e-3)


@pytest.mark.parametrize("name", RECORDINGS)
def test_real_recordings_against_another_resampler(data: Path, name: str):
    """The log-mels differ from scipy's polyphase filter as the published resampler's do.

    Up to band 55 hardly at all. Above, next to 8 kHz, the filters' edges show: 0.02 to 0.04 on average here,
    where resampy's other filter (kaiser_fast) is 0.12 to 0.25 off and would fail.
    """
    samples, rate = read_audio(data / "audio" / f"{name}.hq.ogg")
    assert rate == 44_100
    ours = log_mel_examples(to_16k(samples, rate))
    common = gcd(rate, SAMPLE_RATE)
    other = log_mel_examples(scipy.signal.resample_poly(samples, SAMPLE_RATE // common, rate // common))
    assert ours.shape == other.shape
    assert ours.std() > 0.5
    difference = np.abs(ours - other)
    assert difference[..., :56].max() < 0.09
    assert difference[..., :56].mean() < 0.0015
    assert difference[..., 56:].mean() < 0.06


@pytest.mark.parametrize("format", ["wav", "flac", "ogg"])
def test_half_written_recordings(tmp_path: Path, format: str, noise):
    path = tmp_path / f"clip.{format}"
    soundfile.write(path, noise(80_000), 16_000)
    assert find_damage(path, read_audio(path)[0]) is None
    content = path.read_bytes()
    for part in (0.4, 0.9):
        path.write_bytes(content[: int(len(content) * part)])
        try:
            samples, _ = read_audio(path)
        except UsageError as error:
            assert "cannot be read" in str(error) or "ends after" in str(error)  # noqa: PT017
        else:
            assert "ends before" in (find_damage(path, samples) or "")


def test_wav_files_from_a_pipe_have_no_declared_length(write_wav, noise):
    path = write_wav(noise(8_000))
    content = bytearray(path.read_bytes())
    content[4:8] = b"\xff" * 4
    path.write_bytes(content)
    assert find_damage(path, noise(8_000)) is None


@pytest.mark.parametrize(
    ("samples", "damaged"),
    [
        (np.sin(np.arange(16_000) / 9), False),
        (np.zeros(16_000), False),
        (np.clip(3 * np.sin(np.arange(16_000) / 9), -1, 1), True),  # hard clipping of 78 % of the samples
        (np.sign(np.sin(np.arange(16_000) / 9 + 0.1)) * 0.5, True),
        (np.ones(16_000), True),
        (np.sign(np.sin(np.arange(16_000) / 9)) / 32768, False),  # quantisation noise
    ],
)
def test_square_waves(write_wav, samples, damaged):
    path = write_wav(samples)
    found = find_damage(path, read_audio(path)[0])
    assert ("square wave" in found) if damaged else found is None


@pytest.mark.parametrize(("seconds", "wrong"), [(5, 0), (4, 0), (7, 0), (2.9, 1), (8, 1), (0.1, 1)])
def test_lengths(seconds, wrong):
    assert (find_wrong_length(np.zeros(int(seconds * 1000)), 1000, 5) is not None) == wrong


def test_a_recording_of_too_many_samples_is_refused_before_decoding(write_wav, monkeypatch):
    monkeypatch.setattr(waveform, "MAX_SAMPLES", 1000)
    with pytest.raises(UsageError, match="has 2 channels of 501 samples; extract it again with one channel"):
        read_audio(write_wav(np.zeros((501, 2))))
