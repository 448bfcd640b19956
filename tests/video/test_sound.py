"""The sound of a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from avsbench_harness.data.audio.waveform import read_audio
from avsbench_harness.testing.videos import LOSSLESS, tone, write_test_video
from avsbench_harness.video.probe import probe
from avsbench_harness.video.sound import SoundReader


def test_sound_is_that_of_the_extracted_recording(tmp_path: Path) -> None:
    rate = 44_100
    stereo = np.stack([tone(2, rate), tone(2, rate, 660) // 3])
    path = write_test_video(tmp_path / "a.mkv", codecs=LOSSLESS, sound=stereo, sound_rate=rate)
    soundfile.write(tmp_path / "a.wav", stereo.T, rate, subtype="PCM_16")
    expected, wav_rate = read_audio(tmp_path / "a.wav")
    reader = SoundReader(probe(path), 5)
    assert reader.rate == wav_rate
    assert np.array_equal(reader.read(0, 2 * rate), expected)


def test_intervals_overlap_and_end_in_silence(lossless: Path) -> None:
    whole = tone(2, 16_000) / 32768
    reader = SoundReader(probe(lossless), 1)
    for start in (0, 4000, 4000, 15_000, 20_000):
        assert np.array_equal(reader.read(start, 8000), whole[start : start + 8000])
    tail = reader.read(30_000, 8000)
    assert np.array_equal(tail[:2000], whole[30_000:])
    assert not tail[2000:].any()


def test_memory_does_not_depend_on_the_length(tmp_path: Path) -> None:
    path = write_test_video(tmp_path / "long.mkv", seconds=20, rate=1, codecs=LOSSLESS)
    reader = SoundReader(probe(path), 2)
    for second in range(18):
        reader.read(second * 16_000, 16_000)
        held = sum(len(samples) for _, samples in reader._parts)
        assert held <= 3.2 * 16_000


def test_sound_that_begins_after_the_picture_is_late_by_as_much(tmp_path: Path) -> None:
    late = np.concatenate([np.zeros(8000, np.int16), tone(1.5, 16_000)])
    path = write_test_video(tmp_path / "late.mkv", codecs=LOSSLESS, sound=late)
    samples = SoundReader(probe(path), 5).read(0, 32_000)
    assert np.flatnonzero(samples)[0] in (8000, 8001)


def test_a_video_without_sound_is_silent(tmp_path: Path) -> None:
    media = probe(write_test_video(tmp_path / "silent.mp4", silent=True))
    assert media.sound_rate is None
    assert not SoundReader(media, 5).read(0, 100).any()


def test_damaged_sound_does_not_end_the_reading(tmp_path: Path) -> None:
    whole = write_test_video(tmp_path / "whole.mkv", seconds=6)
    content = bytearray(whole.read_bytes())
    middle, length = len(content) // 2, len(content) // 20
    content[middle : middle + length] = np.random.default_rng(1).bytes(length)
    path = tmp_path / "damaged.mkv"
    path.write_bytes(content)
    samples = SoundReader(probe(path), 6).read(0, 6 * 16_000)
    assert np.abs(samples[: 2 * 16_000]).max() > 0.2
    assert np.abs(samples[5 * 16_000 :]).max() > 0.2
