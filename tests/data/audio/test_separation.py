"""Separated sources: masked copies of the mixture."""

from __future__ import annotations

import numpy as np
import pytest

from avsbench_harness.data.audio.logmel import LOG_OFFSET
from avsbench_harness.data.audio.separation import (
    SEPARATORS,
    check_separator,
    hpss_masks,
    nmf_masks,
    separate,
)
from avsbench_harness.errors import UsageError


def tone_and_clicks() -> tuple[np.ndarray, np.ndarray]:
    """Two seconds: a steady tone in band 20, and a click in all bands every half second."""
    tone, clicks = np.zeros((192, 64)), np.zeros((192, 64))
    tone[:, 20] = 2.0
    clicks[25::50] = 1.0
    return tone, clicks


def examples(magnitude: np.ndarray) -> np.ndarray:
    return np.log(magnitude + LOG_OFFSET).reshape(-1, 1, 96, 64).astype(np.float32)


def test_hpss_separates_sustained_sounds_from_transients() -> None:
    tone, clicks = tone_and_clicks()
    harmonic, percussive = hpss_masks(tone + clicks)
    quiet = np.ones(192, bool)
    quiet[25::50] = False
    assert harmonic[quiet, 20].min() > 0.99
    assert percussive[25::50, 40:].min() > 0.99


def test_nmf_assigns_a_component_to_each_spectrum() -> None:
    """Two sources with spectra that do not overlap, on at different times."""
    gains, spectra = np.zeros((192, 2)), np.zeros((2, 64))
    gains[:100, 0], gains[60:, 1] = 1.0, 2.0
    spectra[0, 5:15], spectra[1, 30:50] = 1.0, 1.0
    masks = nmf_masks(gains @ spectra)
    low, high = masks[:, :100, 5:15].mean((1, 2)), masks[:, 60:, 30:50].mean((1, 2))
    assert low.argmax() != high.argmax()
    # One of the three components may share a spectrum with another; no component has both.
    assert np.minimum(low, high).max() < 0.05


@pytest.mark.parametrize("name", SEPARATORS)
def test_sources_add_up_to_the_mixture(name: str) -> None:
    tone, clicks = tone_and_clicks()
    mixture = examples(tone + clicks)
    sources = separate(mixture, name)
    assert sources.shape == (2, SEPARATORS[name].sources, 1, 96, 64)
    assert sources.dtype == np.float32
    added = (np.exp(sources.astype(np.float64)) - LOG_OFFSET).sum(axis=1)
    np.testing.assert_allclose(added, np.exp(mixture.astype(np.float64)) - LOG_OFFSET, atol=1e-5)
    np.testing.assert_array_equal(sources, separate(mixture, name))


@pytest.mark.parametrize("name", SEPARATORS)
def test_silence_and_padded_examples(name: str) -> None:
    silent = examples(np.zeros((192, 64)))
    assert np.isfinite(separate(silent, name)).all()
    np.testing.assert_allclose(separate(silent, name), np.log(LOG_OFFSET), atol=1e-4)
    filled = examples(tone_and_clicks()[0])
    filled[1] = 0.0
    separated = separate(filled, name)
    assert not separated[1].any()
    np.testing.assert_array_equal(separated[:1], separate(filled[:1], name))
    assert not separate(np.zeros_like(filled), name).any()


def test_names() -> None:
    for name in ("none", *SEPARATORS):
        check_separator(name)
    with pytest.raises(UsageError, match="Did you mean 'hpss'"):
        check_separator("hps")
