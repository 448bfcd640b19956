"""Recordings: wav, flac and ogg of any rate and number of channels, read as mono and resampled to 16 kHz."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.errors import UsageError, one_line

#: Sample rate of the VGGish front end, Hz.
SAMPLE_RATE = 16_000

#: Maximum length of a recording. Clips last 5 or 10 s; a small compressed file can contain days of silence.
MAX_SECONDS = 3_600


#: Maximum number of samples of all channels, which bounds the memory.
MAX_SAMPLES = 2**26

# A recording that lasts less or more than these fractions of its clip is reported.
_SHORTEST, _LONGEST = 0.6, 1.5

# A recording is a square wave if this fraction of its samples is at the peak, which noise and tones are not.
_AT_PEAK = 0.5
_QUIET = 0.01  # peak below which the few quantisation levels would look like a square wave


def find_damage(path: Path, samples: NDArray[np.float64]) -> str | None:
    """The damage of a recording that can be read, as the end of a sentence; ``None`` if there is none.

    Args:
        path: the file.
        samples: its samples (n,), from :func:`read_audio`.
    """
    if _is_cut(path):
        return "ends before the length that its header declares; copy or extract it again"
    level = np.abs(samples)
    peak = level.max()
    at_peak = np.mean(level >= 0.99 * peak)
    if peak > _QUIET and at_peak > _AT_PEAK:
        return (
            f"has {at_peak:.0%} of its samples at the peak, as a recording clipped to a square wave; extract "
            "it again, with samples in [-1, 1] if they are floating point"
        )
    return None


def find_wrong_length(samples: NDArray[np.float64], rate: int, seconds: int) -> str | None:
    """The end of a sentence if a recording is much shorter or longer than its clip, else ``None``."""
    length = len(samples) / rate
    if _SHORTEST * seconds <= length <= _LONGEST * seconds:
        return None
    return f"lasts {length:.1f} s, but its clip {seconds} s"


def _is_cut(path: Path) -> bool:
    """Whether a wav file is shorter than declared, or an ogg file lacks its last page."""
    with path.open("rb") as file:
        start = file.read(8)
        size = file.seek(0, 2)
        file.seek(max(0, size - 2**17))  # longer than a page
        tail = file.read()
    if start[:4] == b"RIFF":
        declared = int.from_bytes(start[4:], "little")
        # Programs that write to a pipe cannot know the size.
        return declared < 0x7FFF_FFFF and size < declared + 8
    if start[:4] == b"OggS":
        last = tail[tail.rfind(b"OggS") :]
        return len(last) < 6 or not last[5] & 4  # the flag of the last page
    return False


def read_audio(path: Path) -> tuple[NDArray[np.float64], int]:
    """Read a recording and average its channels.

    16-bit samples are divided by 32768, as the published front end does. Files of other depths are read at
    their own resolution; float samples beyond full scale are clipped.

    Returns:
        Samples (n,) in [-1, 1], n > 0, and the file's rate in Hz.

    Raises:
        UsageError: the file is missing, not a recording, truncated, empty, too long, or contains NaN.
    """
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            rate = int(file.samplerate)
            if file.frames > MAX_SECONDS * rate:
                raise UsageError(
                    f"{path} lasts {file.frames / rate:.0f} s; clips are 5 or 10 s, cut it first."
                )
            if file.frames * file.channels > MAX_SAMPLES:
                raise UsageError(
                    f"{path} has {file.channels} channels of {file.frames} samples; extract it again with "
                    "one channel at 16 kHz."
                )
            declared = file.frames
            channels = file.read(dtype="float64", always_2d=True)
    except FileNotFoundError:
        raise UsageError(f"There is no recording {path}.") from None
    except (OSError, RuntimeError) as error:  # libsndfile's errors are RuntimeErrors
        if not path.exists():
            raise UsageError(f"There is no recording {path}.") from None
        reason = getattr(error, "error_string", type(error).__name__)  # without the path
        raise UsageError(f"{path} cannot be read as wav, flac or ogg ({one_line(reason)}).") from error
    if len(channels) == 0:
        raise UsageError(f"{path} has no samples; fetch or extract the recording again.")
    if len(channels) < declared:
        raise UsageError(
            f"{path} ends after {len(channels)} of {declared} samples; copy or extract the recording again."
        )
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
