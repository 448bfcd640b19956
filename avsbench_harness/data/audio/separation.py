"""Audio source separation on the log-mel spectrogram, before the audio encoder.

These separators replace the learned one that works on the waveform (Chen et al., "Zero-shot audio source
separation", AAAI 2022) in the ablation of Li et al., "QDFormer" (CVPR 2024, Table 2). They have no weights
and use only the shape of the spectrogram. Sources are masked copies of the mixture's mel spectrum and sum to
it.

A plugin may add another separator to :data:`SEPARATORS` when it is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.data.audio.logmel import LOG_OFFSET
from avsbench_harness.errors import unknown

#: The name of no separation in a recipe.
NO_SEPARATOR = "none"

#: (frames, bands) mel magnitudes -> (sources, frames, bands) masks of the sources, which sum to 1.
Masks: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.float64]]

#: Median filters of HPSS: 0.31 s of time, and 9 of 64 mel bands.
_HPSS_FRAMES, _HPSS_BANDS = 31, 9
#: Components of the factorisation, each a source, and number of multiplicative updates.
_NMF_SOURCES, _NMF_UPDATES = 3, 100
_TINY = 1e-12


@dataclass(frozen=True)
class Separator:
    """A separation method.

    Attributes:
        sources: number of sources, S.
        masks: the function that computes the soft masks of a spectrogram.
        version: changes whenever its values change; part of every cache key.
    """

    sources: int
    masks: Masks
    version: int = 1


def hpss_masks(magnitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return harmonic and percussive soft masks by median filters (FitzGerald 2010), of squared magnitudes.

    Sustained components pass a median filter over time, transients one over frequency.

    Args:
        magnitude: (frames, bands), 0 or more.

    Returns:
        (2, frames, bands); one half each for magnitude 0.
    """
    from scipy.ndimage import median_filter

    harmonic = median_filter(magnitude, size=(_HPSS_FRAMES, 1), mode="nearest")
    percussive = median_filter(magnitude, size=(1, _HPSS_BANDS), mode="nearest")
    return _shares(np.stack([harmonic, percussive]) ** 2)


def nmf_masks(magnitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return soft masks of the components of a non-negative matrix factorisation (Lee and Seung 2001).

    The Euclidean updates always start from the same random numbers, so that the result is deterministic.

    Args:
        magnitude: (frames, bands), 0 or more.

    Returns:
        (3, frames, bands)
    """
    frames, bands = magnitude.shape
    draw = np.random.Generator(np.random.Philox(0))
    gains = draw.uniform(0.5, 1.5, (frames, _NMF_SOURCES))
    spectra = draw.uniform(0.5, 1.5, (_NMF_SOURCES, bands))
    for _ in range(_NMF_UPDATES):
        spectra *= gains.T @ magnitude / (gains.T @ gains @ spectra + _TINY)
        gains *= magnitude @ spectra.T / (gains @ (spectra @ spectra.T) + _TINY)
    return _shares(gains.T[:, :, None] * spectra[:, None, :])


#: The values of a recipe's ``audio.separator`` besides ``none``.
SEPARATORS: dict[str, Separator] = {
    "hpss": Separator(sources=2, masks=hpss_masks),
    "nmf": Separator(sources=_NMF_SOURCES, masks=nmf_masks),
}


def check_separator(name: str) -> None:
    """Check the name of a separator.

    Raises:
        UsageError: it is neither ``none`` nor in :data:`SEPARATORS`.
    """
    if name != NO_SEPARATOR and name not in SEPARATORS:
        raise unknown("audio.separator", name, [NO_SEPARATOR, *SEPARATORS])


def separate(examples: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """Separate a clip's log-mel examples into sources.

    The examples of a clip are contiguous and are separated together. Examples of zeros, the padding of short
    clips of avss, stay zero.

    Args:
        examples: (T,1,frames,bands) log-mel of the mixture.
        name: a name in :data:`SEPARATORS`.

    Returns:
        (T,S,1,frames,bands) float32.
    """
    separator = SEPARATORS[name]
    shape = (len(examples), separator.sources, *examples.shape[1:])
    separated = np.zeros(shape, np.float32)
    valid = examples.any(axis=(1, 2, 3))
    if not valid.any():
        return separated
    frames, bands = examples.shape[2:]
    mixture = np.exp(examples[valid].astype(np.float64)).reshape(-1, bands) - LOG_OFFSET
    magnitude = np.maximum(mixture, 0.0)
    sources = np.log(separator.masks(magnitude) * magnitude + LOG_OFFSET)
    split = sources.reshape(separator.sources, -1, 1, frames, bands).swapaxes(0, 1)
    separated[valid] = split.astype(np.float32)
    return separated


def _shares(strengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normalise (S,...) strengths, 0 or more, to sum to 1 along the first axis."""
    total = strengths.sum(axis=0)
    even = np.full_like(strengths, 1 / len(strengths))
    shares: NDArray[np.float64] = np.divide(strengths, total, out=even, where=total > _TINY)
    return shares
