"""Changes of a clip's recording before the audio front end: silence, noise, mixtures and shifts.

A change is a function of 16 kHz samples, so that the front end is the same for every changed recording and
for the recording itself. The power P of a recording is the mean of its squared samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.data.audio.waveform import SAMPLE_RATE
from avsbench_harness.data.clip import Clip

#: Changes whenever the samples of a change do; part of every cache key and of submissions.
CHANGE_VERSION = 1

Samples: TypeAlias = NDArray[np.float64]
ChangeKind: TypeAlias = Literal["silence", "white", "pink", "mixed", "shifted"]


@dataclass(frozen=True)
class Change:
    """A change of the recordings of a split.

    Attributes:
        kind: ``silence``: zeros. ``white``, ``pink``: noise with the power of the recording, a function of
            the clip's id. ``mixed``: the recording of another clip is added. ``shifted``: a circular shift.
        amount: ``mixed``: signal-to-noise ratio, dB. ``shifted``: delay, seconds.
        others: ``mixed``: per clip id the clip whose recording is added.
    """

    kind: ChangeKind
    amount: int = 0
    others: Mapping[str, Clip] = field(default_factory=dict, compare=False, repr=False)

    @property
    def label(self) -> str:
        """Name and version, as part of cache keys."""
        return f"{self.kind}{self.amount:+d}-{CHANGE_VERSION}"

    def apply(self, samples: Samples, clip: str, other: Samples | None = None) -> Samples:
        """Return the changed recording, of the same length.

        Args:
            samples: (n,) at 16 kHz, not empty.
            clip: id of the clip, the seed of noise.
            other: samples of the clip in :attr:`others`, for ``mixed``.
        """
        if self.kind == "silence":
            return np.zeros_like(samples)
        if self.kind == "mixed":
            assert other is not None  # the caller reads it for this kind
            return mix(samples, other, self.amount)
        if self.kind == "shifted":
            return np.roll(samples, self.amount * SAMPLE_RATE)
        changed: Samples = noise(self.kind, len(samples), clip) * np.sqrt(power(samples))
        return changed


def power(samples: Samples) -> float:
    """Return the mean of the squared samples."""
    return float(np.mean(samples**2))


def mix(signal: Samples, other: Samples, snr: float) -> Samples:
    """Return y = s + n * sqrt(P_s / (P_n * 10^(SNR/10))).

    ``n`` is repeated or cut to the length of ``s``; a silent ``n`` adds nothing. The sum is not clipped.

    Args:
        signal: s, (n,).
        other: n, not empty.
        snr: signal-to-noise ratio, dB.
    """
    added = np.resize(other, len(signal))
    if not added.any():
        return signal
    mixed: Samples = signal + added * np.sqrt(power(signal) / (power(added) * 10 ** (snr / 10)))
    return mixed


def noise(colour: str, count: int, clip: str) -> Samples:
    """Return (count,) noise of power 1.

    Args:
        colour: ``white``: independent samples, sums of four uniform integers. ``pink``: the same with power
            per frequency proportional to 1 / f, without a constant part.
        count: number of samples.
        clip: id of a clip, the seed.
    """
    seed = hashlib.sha256(f"noise/{colour}/{clip}".encode()).digest()[:16]
    # Unlike NumPy's distributions, the raw stream does not change with its version.
    raw = np.random.Philox(key=np.frombuffer(seed, "<u8").astype(np.uint64)).random_raw(count)
    values: Samples = raw.astype("<u8").view("<i2").reshape(count, 4).sum(axis=1, dtype=np.float64)
    if colour == "pink":
        spectrum = np.fft.rfft(values)
        spectrum[0] = 0
        spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
        values = np.fft.irfft(spectrum, count)
    if values.any():
        values /= np.sqrt(power(values))
    return values
