"""Recordings and clips for the audio tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avsbench_harness.data.clip import Clip

WriteWav = Callable[..., Path]


@pytest.fixture
def write_wav(tmp_path: Path) -> WriteWav:
    """Write samples as a 16-bit wav and return its path."""

    def write(
        samples: np.ndarray, rate: int = 16_000, name: str = "clip.wav", subtype: str = "PCM_16"
    ) -> Path:
        soundfile.write(tmp_path / name, samples, rate, subtype=subtype)
        return tmp_path / name

    return write


@pytest.fixture
def make_clip() -> Callable[..., Clip]:
    """A clip of ``frames`` frames with that sound; its pictures are never opened."""

    def make(audio: Path | None = None, logmel: Path | None = None, frames: int = 5) -> Clip:
        pictures = tuple(Path(f"{index}.png") for index in range(frames))
        return Clip("a-clip", pictures, (None,) * frames, audio, logmel, "bird", "s4")

    return make


@pytest.fixture
def noise() -> Callable[[int], np.ndarray]:
    """So many samples of reproducible noise at half of full scale."""
    return lambda count: np.random.default_rng(7).uniform(-0.5, 0.5, count)
