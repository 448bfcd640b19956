"""Timbres of the kinds, and noise.

Signals are made of wavetables, linearly interpolated noise and products, without filters or transforms (see
:mod:`draws` for the reason). No pause within a sound is longer than 0.4 s, so that every second of a sounding
object is audible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.data.avsbench.writer import RATE
from avsbench_harness.data.synth.draws import ATTENUATION, SIN, TURN, Draws, Floats, Ints

#: Highest partial, in Hz; the upper limit of VGGish's mel filters.
TOP = 7500
#: Samples of a fade at the beginning and the end of a sounding interval (10 ms).
FADE = 160


class Voice:
    """The signal generators of one instance of a kind.

    Args:
        samples: number of samples.
        pitch: offset from the kind's pitch, in 1024ths.
        draws: random stream of phases and noise.
    """

    def __init__(self, samples: int, pitch: int, draws: Draws) -> None:
        self._samples = samples
        self._pitch = (1024 + pitch) / 1024
        self._draws = draws

    def oscillator(self, hz: float | Floats, partials: Sequence[float] = (1.0,)) -> Floats:
        """Return a periodic signal; ``partials`` are the amplitudes of the 1st, 2nd ... harmonic."""
        steps = np.rint(np.broadcast_to(hz, self._samples) * self._pitch * (2.0**32 / RATE)).astype(np.int64)
        start = self._draws.integer(0, 2**32 - 1)
        phase = (np.cumsum(steps) + start) & 0xFFFFFFFF
        wave: Floats = _wavetable(partials)[phase >> 20]
        return wave

    def noise(self, hz: int) -> Floats:
        """Return noise with ``hz`` random values per second, linearly interpolated."""
        step = RATE // hz
        knots = self._draws.noise(self._samples // step + 2) / 37837
        position = np.arange(self._samples)
        left, fraction = position // step, position % step / step
        return knots[left] * (1 - fraction) + knots[left + 1] * fraction

    def band(self, hz: float, width: int) -> Floats:
        """Return band-limited noise around a centre frequency."""
        return self.noise(width) * self.oscillator(hz)

    def since(self, rate: float) -> Ints:
        """Return the samples since the last of ``rate`` periodic events per second."""
        period = round(RATE / rate)
        return (np.arange(self._samples) + self._draws.integer(0, period - 1)) % period


def _wavetable(partials: Sequence[float]) -> Floats:
    """One period (TURN,) of a sum of harmonics."""
    turn = np.arange(TURN)
    wave = np.zeros(TURN)
    for number, amplitude in enumerate(partials, start=1):
        if amplitude:
            wave += amplitude * (SIN[turn * number % TURN] / 32768)
    return wave


def _decay(since: Ints, time: int) -> Floats:
    """An exponential decay from each event, with a time constant in samples."""
    curve = np.multiply.accumulate(np.full(int(since.max()) + 1, 1 - 1 / time))
    return curve[since]


def _below(hz: float, amplitudes: Sequence[float]) -> list[float]:
    """The amplitudes of the harmonics below ``TOP``, with a margin of 3 % for the pitch."""
    return [a for number, a in enumerate(amplitudes, start=1) if number * hz * 1.03 < TOP]


def _organ(voice: Voice, register: int) -> Floats:
    """Steady harmonics with amplitudes 1/k."""
    hz = (262, 880, 165, 523, 1480, 349)[register]
    return voice.oscillator(hz, _below(hz, [1 / k for k in range(1, 13)]))


def _bursts(voice: Voice, register: int) -> Floats:
    """Bursts of band noise with a duty cycle of one half."""
    hz, width, rate = (
        (3200, 1200, 5), (900, 500, 4), (5200, 1600, 6), (1700, 600, 7), (420, 260, 5), (2400, 300, 8)
    )[register]  # fmt: skip
    since = voice.since(rate)
    return voice.band(hz, width) * (since < RATE // rate // 2)


def _siren(voice: Voice, register: int) -> Floats:
    """Two alternating tones of odd harmonics."""
    hz = (620, 1150, 440, 1900, 780, 310)[register]
    high = voice.since(2.5) < RATE // 5
    tone = np.where(high, hz * 1.3, float(hz))
    return voice.oscillator(tone, _below(hz * 1.3, [k % 2 / k for k in range(1, 10)]))


def _clicks(voice: Voice, register: int) -> Floats:
    """Short clicks with a broad resonance."""
    hz, rate = ((1300, 9), (4200, 13), (2300, 7), (650, 11), (6000, 8), (3100, 16))[register]
    since = voice.since(rate)
    ring = voice.oscillator(hz) * _decay(since, 300)
    return ring + voice.noise(8000) * _decay(since, 25)


def _vowel(voice: Voice, register: int) -> Floats:
    """A harmonic tone with two formants and a slow vibrato."""
    hz, first, second = (
        (118, 700, 1150), (210, 310, 2600), (95, 450, 850), (250, 820, 3100), (150, 560, 1800),
        (180, 350, 1300),
    )[register]  # fmt: skip
    amplitudes = [
        _resonance((k * hz - first) / 110) + 0.7 * _resonance((k * hz - second) / 150) + 0.01
        for k in range(1, 40)
    ]
    bent = hz * (1 + 0.015 * voice.oscillator(5))
    return voice.oscillator(bent, _below(hz, amplitudes))


def _resonance(distance: float) -> float:
    return 1 / (1 + distance * distance)


def _hiss(voice: Voice, register: int) -> Floats:
    """Steady noise of one wide band."""
    hz, width = ((5200, 2600), (2100, 1300), (6600, 800), (3600, 900), (1100, 400), (4400, 500))[register]
    return voice.band(hz, width)


def _pluck(voice: Voice, register: int) -> Floats:
    """Plucked strings: the high harmonics decay first."""
    hz, rate = ((392, 4), (233, 3), (740, 5), (294, 6), (1046, 4), (466, 8))[register]
    since = voice.since(rate)
    low = voice.oscillator(hz, _below(hz, [1, 0.5, 0.35]))
    high = voice.oscillator(hz, _below(hz, [0, 0, 0, 0.5, 0.5, 0.4, 0.4, 0.3, 0.3, 0.2]))
    return low * _decay(since, 1800) + high * _decay(since, 500)


def _chirp(voice: Voice, register: int) -> Floats:
    """Glides, upwards in even registers and downwards in odd ones."""
    low, high, rate = (
        (1800, 4200, 4), (900, 2400, 3), (3000, 6800, 6), (500, 1500, 4), (2400, 3400, 8), (1300, 5600, 3)
    )[register]  # fmt: skip
    since = voice.since(rate)
    period = RATE / rate
    progress = since / period if register % 2 == 0 else 1 - since / period
    return voice.oscillator(low + (high - low) * progress) * (since < 0.8 * period)


def _motor(voice: Voice, register: int) -> Floats:
    """Low pulses with coarse noise on each."""
    hz, rough = ((34, 900), (58, 1800), (26, 500), (80, 1200), (45, 3200), (68, 650))[register]
    pulses = _decay(voice.since(hz), RATE // hz // 4)
    return pulses * (voice.noise(rough) + 0.5 * voice.band(rough, rough // 2))


def _bell(voice: Voice, register: int) -> Floats:
    """Struck metal: inharmonic partials with a long decay."""
    hz, rate = ((1050, 2.5), (520, 3), (1560, 4), (780, 3.5), (2100, 3), (390, 2.5))[register]
    since = voice.since(rate)
    ring = np.zeros(since.shape)
    for ratio, amplitude, time in ((0.5, 0.5, 5000), (1, 1, 4000), (1.52, 0.8, 3000), (2.66, 0.7, 1800)):
        ring += amplitude * voice.oscillator(hz * ratio) * _decay(since, time)
    return ring


def _tremolo(voice: Voice, register: int) -> Floats:
    """Two pure tones with amplitude modulation."""
    hz, rate = ((330, 7), (1760, 11), (554, 15), (988, 9), (2640, 6), (220, 12))[register]
    return voice.oscillator(hz, (1, 0, 0.5)) * (1 + 0.9 * voice.oscillator(rate)) / 2


def _warble(voice: Voice, register: int) -> Floats:
    """A whistle with a wide and fast vibrato."""
    hz, rate, depth = (
        (2500, 8, 0.25), (1400, 12, 0.2), (3900, 6, 0.3), (900, 9, 0.35), (5300, 14, 0.15), (1900, 5, 0.1)
    )[register]  # fmt: skip
    return voice.oscillator(hz * (1 + depth * voice.oscillator(rate)), (1, 0.2))


TIMBRES: dict[str, Callable[[Voice, int], Floats]] = {
    "organ": _organ,
    "bursts": _bursts,
    "siren": _siren,
    "clicks": _clicks,
    "vowel": _vowel,
    "hiss": _hiss,
    "pluck": _pluck,
    "chirp": _chirp,
    "motor": _motor,
    "bell": _bell,
    "tremolo": _tremolo,
    "warble": _warble,
}


def tone(timbre: str, register: int, pitch: int, samples: int, draws: Draws) -> Floats:
    """Return the signal (samples,) of one instance, with root mean square 1.

    Args:
        timbre: a key of ``TIMBRES``.
        register: 0 to 5.
        pitch: offset in 1024ths.
        samples: number of samples at ``RATE``.
        draws: random stream of this instance.
    """
    signal = TIMBRES[timbre](Voice(samples, pitch, draws), register)
    # A sum of integers: that of floats would depend on the order of addition.
    whole = np.rint(signal * 4096).astype(np.int64)
    power = int((whole * whole).sum()) / samples
    return whole / float(np.sqrt(power))


def noise_floor(samples: int, hum: int, draws: Draws) -> Floats:
    """Return background noise (samples,) of root mean square about 1, ``hum`` 16ths of it low-pass."""
    share = hum / 16
    voice = Voice(samples, 0, draws)
    rumble = 0.7 * voice.noise(900) + voice.noise(120)
    return (1 - share) * (draws.noise(samples) / 37837) + share * rumble


def gate(active: NDArray[np.bool_]) -> Floats:
    """Return (seconds * RATE,) 1 in active seconds, else 0, with fades on the active side of changes."""
    envelope = np.repeat(active.astype(np.float64), RATE)
    ramp = np.arange(1, FADE + 1) / (FADE + 1)
    for second in range(1, len(active)):
        edge = second * RATE
        if active[second] and not active[second - 1]:
            envelope[edge : edge + FADE] = ramp
        elif active[second - 1] and not active[second]:
            envelope[edge - FADE : edge] = ramp[::-1]
    return envelope


def decibels(level: int) -> float:
    """Return the amplitude of -``level`` dB."""
    return float(ATTENUATION[level])


def to_pcm(signal: Floats) -> NDArray[np.int16]:
    """Convert a signal to 16-bit samples; values outside of [-1,1] are clipped."""
    return np.clip(np.rint(signal * 32767), -32768, 32767).astype(np.int16)
