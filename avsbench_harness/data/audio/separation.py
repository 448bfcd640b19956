"""Sound separated into sources before a model hears it, on the log-mel spectrogram.

Stand-ins for the learned separator that works on the waveform (Chen et al., "Zero-shot audio source
separation", AAAI 2022) in the ablation of Li et al., "QDFormer" (CVPR 2024, Table 2): they know nothing of
what things sound like, need no weights, and split the spectrogram by its shape alone. Sources are masked
copies of the mixture's mel spectrum and add up to it.

Another separator is one more entry of :data:`SEPARATORS`, which a plugin may add when it is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from avsbench_harness.data.audio.logmel import LOG_OFFSET
from avsbench_harness.errors import unknown

#: A recipe's word for sound that is left as it is.
NO_SEPARATOR = "none"

#: (frames, bands) mel magnitudes -> (sources, frames, bands) shares of each source, which sum to 1.
Masks: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.float64]]

#: Median filters of HPSS: 0.31 s of time, and 9 of 64 mel bands.
_HPSS_FRAMES, _HPSS_BANDS = 31, 9
#: Components of the factorisation, each of which counts as a source, and its multiplicative updates.
_NMF_SOURCES, _NMF_UPDATES = 3, 100
_TINY = 1e-12


@dataclass(frozen=True)
class Separator:
    """One way to separate.

    Attributes:
        sources: how many sources it gives, S.
        masks: the shares of each in every cell of a spectrogram.
        version: changes whenever its numbers do; part of every cache key.
    """

    sources: int
    masks: Masks
    version: int = 1


def hpss_masks(magnitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Harmonic and percussive share by median filters (FitzGerald 2010), soft masks with squares.

    What lasts survives a median over time, what is sudden one over frequency.

    Args:
        magnitude: (frames, bands), 0 or more.

    Returns:
        (2, frames, bands); halves where there is nothing.
    """
    harmonic = median_filter(magnitude, size=(_HPSS_FRAMES, 1), mode="nearest")
    percussive = median_filter(magnitude, size=(1, _HPSS_BANDS), mode="nearest")
    return _shares(np.stack([harmonic, percussive]) ** 2)


def nmf_masks(magnitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of the components of a non-negative matrix factorisation (Lee and Seung 2001).

    Euclidean updates, which start from the same random numbers whatever the sound: equal sounds are separated
    equally.

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


#: The separators that a recipe's ``audio.separator`` may name beside ``none``.
SEPARATORS: dict[str, Separator] = {
    "hpss": Separator(sources=2, masks=hpss_masks),
    "nmf": Separator(sources=_NMF_SOURCES, masks=nmf_masks),
}


def check_separator(name: str) -> None:
    """Refuse a name that nothing answers to.

    Raises:
        UsageError: it is neither ``none`` nor a separator's.
    """
    if name != NO_SEPARATOR and name not in SEPARATORS:
        raise unknown("audio.separator", name, [NO_SEPARATOR, *SEPARATORS])


def separate(examples: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """A clip's sources as log-mel examples.

    The examples of a clip follow each other without a gap and are separated together; those that are all
    zeros, which fill up short clips of avss, hold no sound and stay what they are.

    Args:
        examples: (T,1,frames,bands) log-mel of the mixture.
        name: of one of :data:`SEPARATORS`.

    Returns:
        (T,S,1,frames,bands) float32.
    """
    separator = SEPARATORS[name]
    shape = (len(examples), separator.sources, *examples.shape[1:])
    separated = np.zeros(shape, np.float32)
    heard = examples.any(axis=(1, 2, 3))
    if not heard.any():
        return separated
    frames, bands = examples.shape[2:]
    mixture = np.exp(examples[heard].astype(np.float64)).reshape(-1, bands) - LOG_OFFSET
    magnitude = np.maximum(mixture, 0.0)
    sources = np.log(separator.masks(magnitude) * magnitude + LOG_OFFSET)
    split = sources.reshape(separator.sources, -1, 1, frames, bands).swapaxes(0, 1)
    separated[heard] = split.astype(np.float32)
    return separated


def _shares(strengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """(S,...) strengths, 0 or more, as shares that sum to 1 along the first axis."""
    total = strengths.sum(axis=0)
    even = np.full_like(strengths, 1 / len(strengths))
    shares: NDArray[np.float64] = np.divide(strengths, total, out=even, where=total > _TINY)
    return shares
