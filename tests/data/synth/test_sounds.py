from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from avsbench_harness.data.synth import sounds
from avsbench_harness.data.synth.draws import Draws, Floats
from avsbench_harness.data.synth.kinds import KINDS, Kind

RATE = sounds.RATE


def play(kind: Kind, instance: int, seconds: int = 1) -> Floats:
    draws = Draws(21, f"instance of {kind.index}", instance)
    return sounds.tone(kind.timbre, kind.register, draws.integer(-31, 31), seconds * RATE, draws)


def log_spectrum(signal: NDArray[np.floating]) -> Floats:
    """(48,) mean over time of the log magnitude in bands evenly spaced on a log scale, 125 to 7500 Hz."""
    windows = np.lib.stride_tricks.sliding_window_view(signal, 512)[::256] * np.hanning(512)
    magnitude = np.abs(np.fft.rfft(windows))
    band = np.digitize(np.fft.rfftfreq(512, 1 / RATE), np.geomspace(125, 7500, 49))
    bands = [magnitude[:, band == b].sum(axis=1) for b in range(1, 49)]
    return np.log(np.stack(bands, axis=1) + 0.01).mean(axis=0)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.timbre}{kind.register}")
def test_every_second_of_a_sound_is_audible(kind: Kind) -> None:
    signal = play(kind, 0, seconds=5)
    assert np.sqrt((signal**2).mean()) == pytest.approx(1, rel=1e-6)
    loudness = np.sqrt((signal.reshape(5, RATE) ** 2).mean(axis=1))
    assert loudness.min() > 0.7
    assert loudness.max() < 1.3


def held_out_accuracy(kinds: tuple[Kind, ...]) -> float:
    """Fraction of new noisy instances whose nearest mean spectrum is that of their own kind."""
    spectra = []
    for kind in kinds:
        for instance in range(8):
            noise = sounds.noise_floor(RATE, 8, Draws(22, f"noise of {kind.index}", instance))
            spectra.append(log_spectrum(0.1 * play(kind, instance) + 0.01 * noise))
    by_kind = np.array(spectra).reshape(len(kinds), 8, -1)
    centroids, held_out = by_kind[:, :4].mean(axis=1), by_kind[:, 4:]
    distance = np.linalg.norm(held_out[:, :, None] - centroids, axis=-1)
    return float((distance.argmin(axis=-1) == np.arange(len(kinds))[:, None]).mean())


def test_kinds_differ_in_their_spectra() -> None:
    assert held_out_accuracy(KINDS[:23]) > 0.97
    # Some of the 70 differ in time only (glides up and down, vibrato), which mean spectra do not see.
    assert held_out_accuracy(KINDS) > 0.9


def test_instances_of_a_kind_vary() -> None:
    for kind in KINDS[:12]:
        assert np.abs(play(kind, 0) - play(kind, 1)).max() > 0.1


def test_pitch_moves_the_spectrum() -> None:
    def peak(pitch: int) -> float:
        signal = sounds.tone("organ", 1, pitch, RATE, Draws(1, "peak"))
        return float(np.abs(np.fft.rfft(signal)).argmax())  # in Hz: the signal lasts one second

    assert peak(0) == pytest.approx(880, abs=1)
    assert peak(31) == pytest.approx(880 * (1 + 31 / 1024), abs=1)


def test_no_partial_is_aliased() -> None:
    """Harmonics above half the sample rate would be aliased to low tones; they are left out."""
    signal = sounds.tone("organ", 4, 31, RATE, Draws(1, "top"))  # 1480 Hz: five harmonics below 7500 Hz
    spectrum = np.abs(np.fft.rfft(signal * np.hanning(RATE)))
    harmonics = np.rint(1480 * (1 + 31 / 1024) * np.arange(1, 6)).astype(int)
    near = np.zeros(len(spectrum), dtype=bool)
    for hz in harmonics:
        near[hz - 5 : hz + 6] = True
    assert spectrum[~near].max() < 1e-3 * spectrum.max()


def test_noise_floor_has_unit_loudness() -> None:
    for hum in (0, 12):
        noise = sounds.noise_floor(5 * RATE, hum, Draws(1, "floor"))
        assert 0.5 < np.sqrt((noise**2).mean()) < 1.05


def test_gate_fades_on_the_active_side_of_whole_seconds() -> None:
    envelope = sounds.gate(np.array([True, False, True, True]))
    assert envelope[0] == 1  # a recording may begin in the middle of a sound
    assert envelope[RATE - 1] < 0.01
    assert (envelope[RATE : 2 * RATE] == 0).all()
    assert 0 < envelope[2 * RATE] < 0.01
    assert (envelope[2 * RATE + sounds.FADE :] == 1).all()
    assert (np.diff(envelope[2 * RATE : 2 * RATE + sounds.FADE]) > 0).all()


def test_pcm_clips_and_rounds() -> None:
    pcm = sounds.to_pcm(np.array([0.0, 0.5, 1.5, -1.5]))
    assert pcm.tolist() == [0, 16384, 32767, -32768]
