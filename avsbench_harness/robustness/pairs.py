"""Swap pairs: for every clip of a split the recording of another clip with other sounds.

The pairs are a function of the ids of the clips, their kinds of sounds, their lengths and the seed. Each
recording is used at most once. Two clips can be paired if they have the same number of frames and no kind of
sound in common; among all such assignments with the most pairs, the one with the least sum of random costs is
taken. The costs are SHAKE-256 of the ids, so that they depend neither on the order of the clips nor on the
version of NumPy. The lists of AVS-Mini are part of the package (``pair_lists/``), so that they can be read
without the data; they were made by this rule.

Kinds of sounds of a clip:

- composed data: the kinds of all objects that sound in it, whether they are masked or not;
- AVSBench, s4: its category; avss: all classes that ``metadata.csv`` lists (off-screen sounds have no class);
- AVSBench, ms3: not published, so that any other clip of the split is a candidate.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.data.avsbench.composition import read_composition
from avsbench_harness.data.avsbench.labels import listed_classes
from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.data.clip import Clip
from avsbench_harness.files import sha256_json, write_text
from avsbench_harness.tasks import CLASSES, Split

#: The committed pair lists: ``<data set>-<task>-<split>.csv`` with the columns ``clip`` and ``source``.
LISTS = Path(__file__).parent / "pair_lists"

#: Largest random cost of a pair, plus one. With 20,000 clips, sums of costs are exact in float64.
_COSTS = 2**32


@dataclass(frozen=True)
class Candidate:
    """A clip that is to be paired: its id, its kinds of sounds, and its number of frames."""

    id: str
    kinds: frozenset[str]
    frames: int


@dataclass(frozen=True)
class Pairs:
    """The pairs of a split.

    Attributes:
        sources: per clip id the id of the clip whose recording replaces its own.
        left_out: ids of the clips without a pair, sorted.
    """

    sources: Mapping[str, str]
    left_out: tuple[str, ...]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the pairs, 64 hexadecimal digits; see :func:`fingerprint_pairs`."""
        return fingerprint_pairs(self.sources)


def fingerprint_pairs(sources: Mapping[str, str]) -> str:
    """SHA-256 of the canonical JSON of the sorted pairs, 64 hexadecimal digits."""
    return sha256_json(sorted([clip, source] for clip, source in sources.items()))


def swap_pairs(dataset: Dataset, split: Split, seed: int = 0) -> Pairs:
    """Return the swap pairs of a split: the committed list if there is one for it, else computed.

    Raises:
        MissingDataError, BadFileError: the description of a composed clip is missing or malformed.
    """
    listed = list_file(dataset, split) if seed == 0 else None
    if listed is not None and listed.is_file():
        sources, ids = _read_list(listed), {clip.id for clip in dataset.clips(split)}
        if {*sources, *sources.values()} <= ids:  # else it is another data set of that name
            return Pairs(sources, tuple(sorted(ids - set(sources))))
    return make_pairs(dataset, split, seed)


def list_file(dataset: Dataset, split: Split) -> Path:
    """Return the path of the committed pair list of a split, which may not exist."""
    name = dataset.name.lower().replace(" ", "-")
    return LISTS / f"{name}-{dataset.task.name}-{split}.csv"


def write_list(path: Path, pairs: Pairs) -> None:
    """Write a pair list, sorted by clip."""
    lines = ["clip,source", *(f"{clip},{source}" for clip, source in sorted(pairs.sources.items()))]
    write_text(path, "\n".join(lines) + "\n")


@cache
def _read_list(path: Path) -> dict[str, str]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["clip"]: row["source"] for row in csv.DictReader(file)}


def make_pairs(dataset: Dataset, split: Split, seed: int = 0) -> Pairs:
    """Compute the swap pairs of a split by the rule.

    Raises:
        MissingDataError, BadFileError: the description of a composed clip is missing or malformed.
    """
    candidates = [
        Candidate(clip.id, sounding_kinds(dataset, split, clip), len(clip.frames))
        for clip in dataset.clips(split)
    ]
    return assign(candidates, f"{dataset.task.name}/{split}", seed)


def sounding_kinds(dataset: Dataset, split: Split, clip: Clip) -> frozenset[str]:
    """Return the kinds of sounds of a clip; empty if they are not known."""
    if dataset.composed is not None:
        return read_composition(dataset, split, clip).sounding_kinds
    if not dataset.task.semantic:
        return frozenset({clip.category} - {""})
    classes = listed_classes(clip.category)
    if classes is None:  # names that are no classes are compared as they are
        return frozenset(clip.category.split("_"))
    return frozenset(CLASSES[label] for label in classes)


def visible_kinds(dataset: Dataset, split: Split, clip: Clip) -> frozenset[str]:
    """Return the kinds of the visible objects of a clip, as far as they are known.

    Of composed data these are all objects, sounding or not; else the kinds of its sounds.
    """
    if dataset.composed is not None:
        return frozenset(one.kind for one in read_composition(dataset, split, clip).objects)
    return sounding_kinds(dataset, split, clip)


def assign(candidates: Sequence[Candidate], name: str, seed: int = 0) -> Pairs:
    """Pair clips at random.

    Args:
        candidates: the clips; their order has no effect.
        name: name of the random stream.
        seed: seed of the random stream.
    """
    return _assign(tuple(sorted(candidates, key=lambda clip: clip.id)), f"{name}/{seed}")


@lru_cache(maxsize=8)
def _assign(clips: tuple[Candidate, ...], stream: str) -> Pairs:
    """Pair clips that are sorted by id; one run needs the same pairs for audio, header and record."""
    from scipy.optimize import linear_sum_assignment  # slow to import

    if not clips:
        return Pairs({}, ())
    forbidden = _forbidden(clips)
    costs = np.stack([_costs(f"{stream}/{clip.id}", len(clips)) for clip in clips])
    # One forbidden pair costs more than all others together, so that there are as few as possible.
    costs[forbidden] = len(clips) * float(_COSTS)
    rows, columns = linear_sum_assignment(costs)
    allowed = ~forbidden[rows, columns]
    sources = {
        clips[row].id: clips[column].id
        for row, column in zip(rows[allowed].tolist(), columns[allowed].tolist(), strict=True)
    }
    return Pairs(sources, tuple(clip.id for clip in clips if clip.id not in sources))


def _forbidden(clips: Sequence[Candidate]) -> NDArray[np.bool_]:
    """(N,N): whether clip i must not be predicted with the recording of clip j."""
    kinds = {
        kind: index for index, kind in enumerate(sorted({kind for clip in clips for kind in clip.kinds}))
    }
    sounds = np.zeros((len(clips), max(len(kinds), 1)), np.float32)
    for row, clip in enumerate(clips):
        sounds[row, [kinds[kind] for kind in clip.kinds]] = 1
    frames = np.array([clip.frames for clip in clips])
    forbidden: NDArray[np.bool_] = (sounds @ sounds.T > 0) | (frames[:, None] != frames)
    np.fill_diagonal(forbidden, True)
    return forbidden


def _costs(name: str, count: int) -> NDArray[np.float64]:
    """(count,) pseudo-random integers below 2^32, as float64."""
    stream = hashlib.shake_256(name.encode()).digest(4 * count)
    return np.frombuffer(stream, "<u4").astype(np.float64)
