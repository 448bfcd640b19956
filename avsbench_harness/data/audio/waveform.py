"""Recordings: wav, flac and ogg of any rate and number of channels, read as mono and resampled to 16 kHz."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.errors import UsageError

#: Sample rate of the VGGish front end, Hz.
SAMPLE_RATE = 16_000

#: Maximum length of a recording. Clips last 5 or 10 s; a small compressed file can contain days of silence.
MAX_SECONDS = 3_600


def read_audio(path: Path) -> tuple[NDArray[np.float64], int]:
    """Read a recording and average its channels.

    16-bit samples are divided by 32768, as the published front end does. Files of other depths are read at
    their own resolution; float samples beyond full scale are clipped.

    Returns:
        Samples (n,) in [-1, 1], n > 0, and the file's rate in Hz.

    Raises:
        UsageError: the file is missing, not a recording, empty, over an hour long, or contains NaN.
    """
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            rate = int(file.samplerate)
            if file.frames > MAX_SECONDS * rate:
                raise UsageError(
                    f"{path} lasts {file.frames / rate:.0f} s; clips are 5 or 10 s, cut it first."
                )
            channels = file.read(dtype="float64", always_2d=True)
    except FileNotFoundError:
        raise UsageError(f"There is no recording {path}.") from None
    except (OSError, RuntimeError) as error:  # libsndfile's errors are RuntimeErrors
        if not path.exists():
            raise UsageError(f"There is no recording {path}.") from None
        raise UsageError(f"{path} cannot be read as wav, flac or ogg ({error}).") from error
    if len(channels) == 0:
        raise UsageError(f"{path} has no samples; fetch or extract the recording again.")
    samples = channels.mean(axis=1)
    if not np.isfinite(samples).all():
        raise UsageError(f"{path} has samples that are NaN or infinite; extract the recording again.")
    return np.clip(samples, -1.0, 1.0), rate


def to_16k(samples: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """Resample mono samples (n,) from ``rate`` Hz to 16 kHz.

    The filter is resampy's ``kaiser_best``, as published: it affects the log-mel bands next to 8 kHz, so
    another resampler gives other embeddings. A recording too short for one output sample gives none.
    """
    if rate == SAMPLE_RATE:
        return samples
    if len(samples) * SAMPLE_RATE < rate:
        return np.zeros(0)
    import resampy  # slow to import: it compiles loops with numba

    return np.asarray(resampy.resample(samples, rate, SAMPLE_RATE, filter="kaiser_best"), dtype=np.float64)
