"""Projection of audio tokens to two dimensions (Figure 6 of Li et al., "QDFormer", CVPR 2024)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.analysis.tokens import ClipTokens
from avsbench_harness.errors import UsageError, unknown

PROJECTIONS = ("pca", "tsne")

#: Perplexity of t-SNE, and the smallest number of points for it.
_PERPLEXITY, _MIN_POINTS = 30.0, 4


@dataclass(frozen=True)
class Point:
    """One projected token.

    Attributes:
        clip: id of the clip.
        token: index of the token in the clip.
        classes: sounding classes of the clip; empty if unknown.
        several: whether the clip may have more than one source.
        x, y: coordinates.
    """

    clip: str
    token: int
    classes: tuple[str, ...]
    several: bool
    x: float
    y: float

    @property
    def label(self) -> str:
        """``S: man`` for single-source and ``M: guitar+man`` for multi-source clips."""
        return f"{'M' if self.several else 'S'}: {'+'.join(self.classes) or 'unknown'}"

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**vars(self), "classes": list(self.classes)}


def project_tokens(
    clips: Sequence[ClipTokens], projection: str = "pca", classes: Collection[str] = ()
) -> list[Point]:
    """Project the tokens of clips to two dimensions.

    Args:
        clips: tokens of each clip.
        projection: ``pca`` or ``tsne``.
        classes: keep only clips whose sounding classes are all among these; empty keeps all clips.

    Raises:
        UsageError: unknown projection or class, too few tokens, or scikit-learn is missing.
    """
    if projection not in PROJECTIONS:
        raise unknown("projection", projection, PROJECTIONS)
    known = {name for clip in clips for name in clip.classes}
    for name in classes:
        if name not in known:
            raise unknown("class among these clips", name, known)
    kept = [clip for clip in clips if not classes or (clip.classes and set(clip.classes) <= {*classes})]
    tokens = [(clip, index) for clip in kept for index in range(len(clip.tokens))]
    vectors = np.stack([clip.tokens[index] for clip, index in tokens]) if tokens else np.zeros((0, 1))
    coordinates = pca(vectors) if projection == "pca" else tsne(vectors)
    return [
        Point(clip.clip, index, clip.classes, clip.several, float(x), float(y))
        for (clip, index), (x, y) in zip(tokens, coordinates, strict=True)
    ]


def pca(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Project vectors to their first two principal components.

    The sign of an axis is chosen so that its entry of largest magnitude is positive.

    Args:
        vectors: (M,D).

    Returns:
        (M,2).

    Raises:
        UsageError: there are fewer than two vectors.
    """
    if len(vectors) < 2:
        raise UsageError(f"There are {len(vectors)} tokens; PCA needs at least 2.")
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    axes *= np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1))
    coordinates = np.zeros((len(vectors), 2))
    coordinates[:, : len(axes)] = centred @ axes.T
    return coordinates


def tsne(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Project vectors by t-SNE (van der Maaten and Hinton 2008) with a fixed random seed.

    Args:
        vectors: (M,D).

    Returns:
        (M,2).

    Raises:
        UsageError: there are too few vectors, or scikit-learn is not installed.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise UsageError(
            "t-SNE needs scikit-learn: pip install 'avsbench-harness[inspect]', or pass --projection pca."
        ) from None
    if len(vectors) < _MIN_POINTS:
        raise UsageError(f"There are {len(vectors)} tokens; t-SNE needs at least {_MIN_POINTS}.")
    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
    model = TSNE(2, perplexity=perplexity, init="pca", random_state=0)
    coordinates: NDArray[np.float64] = model.fit_transform(vectors.astype(np.float64))
    return coordinates
