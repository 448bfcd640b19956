"""Pictures of audio tokens in two dimensions (Figure 6 of Li et al., "QDFormer", CVPR 2024)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.analysis.tokens import ClipTokens
from avsbench_harness.errors import UsageError, unknown
from avsbench_harness.files import atomic_write

PROJECTIONS = ("pca", "tsne")

#: Labels that get a colour of their own; points of all others are grey.
_COLOURS = 10
#: t-SNE's effective number of neighbours, and the fewest points that it makes sense for.
_PERPLEXITY, _FEWEST = 30.0, 4


@dataclass(frozen=True)
class Point:
    """One token in the plane.

    Attributes:
        clip: id of its clip.
        token: which of the clip's tokens, from 0.
        classes: what sounds in the clip; empty where the task does not say.
        several: whether the clip has more than one source.
        x: first coordinate.
        y: second coordinate.
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
        """Plain values."""
        return {
            "clip": self.clip,
            "token": self.token,
            "classes": list(self.classes),
            "several": self.several,
            "x": self.x,
            "y": self.y,
        }


def place_tokens(
    clips: Sequence[ClipTokens], projection: str = "pca", classes: Collection[str] = ()
) -> list[Point]:
    """Every token of every clip as a point of the plane.

    Args:
        clips: with N tokens each.
        projection: ``pca`` or ``tsne``.
        classes: only clips in which nothing else sounds; empty: all clips.

    Raises:
        UsageError: an unknown projection or class, too few points, or scikit-learn is missing.
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
    places = pca(vectors) if projection == "pca" else tsne(vectors)
    return [
        Point(clip.clip, index, clip.classes, clip.several, float(x), float(y))
        for (clip, index), (x, y) in zip(tokens, places, strict=True)
    ]


def pca(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """(M,D) vectors on their first two principal axes, (M,2); an axis' largest entry is positive.

    Raises:
        UsageError: there are fewer than two vectors.
    """
    if len(vectors) < 2:
        raise UsageError(f"There are {len(vectors)} tokens; a picture needs at least 2.")
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    axes *= np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1))
    places = np.zeros((len(vectors), 2))
    places[:, : len(axes)] = centred @ axes.T
    return places


def tsne(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """(M,D) vectors by t-SNE (van der Maaten and Hinton 2008), (M,2), always from the same start.

    Raises:
        UsageError: there are too few vectors, or scikit-learn is not installed.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise UsageError(
            "t-SNE needs scikit-learn: pip install 'avsbench-harness[inspect]', or pass --projection pca."
        ) from None
    if len(vectors) < _FEWEST:
        raise UsageError(f"There are {len(vectors)} tokens; t-SNE needs at least {_FEWEST}.")
    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
    model = TSNE(2, perplexity=perplexity, init="pca", random_state=0)
    places: NDArray[np.float64] = model.fit_transform(vectors.astype(np.float64))
    return places


def draw_tokens(points: Sequence[Point], title: str, path: Path) -> None:
    """A PNG of the points: colours are classes, discs single-source and crosses multi-source clips."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    labels = [label for label, _ in Counter(point.label for point in points).most_common(_COLOURS)]
    for label in [None, *sorted(labels)]:
        members = [p for p in points if p.label == label or (label is None and p.label not in labels)]
        colour = "0.8" if label is None else colormaps["tab10"](sorted(labels).index(label))
        for several, marker in ((False, "o"), (True, "x")):
            drawn = [point for point in members if point.several is several]
            if drawn:
                axes.scatter(
                    [point.x for point in drawn],
                    [point.y for point in drawn],
                    s=16,
                    marker=marker,
                    color=colour,
                    label="other" if label is None else label,
                )
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=150)
