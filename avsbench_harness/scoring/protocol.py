"""The base class of protocols: counts per frame of a clip, then metrics from the counts of all clips."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from avsbench_harness.scoring.scores import Floats, Scores, Tally

#: (codes or labels (T,H,W), truth (T,H,W)), both uint8 and without padded frames -> counts (T, ...).
Counter = Callable[[npt.NDArray[Any], npt.NDArray[np.uint8]], npt.NDArray[Any]]


@dataclass(frozen=True)
class Frames:
    """The counts of several clips, concatenated along the frames.

    Attributes:
        counts: (F, ...) counts per frame.
        starts: (N,) index of each clip's first frame.
        pixels: number of pixels per frame.
    """

    counts: npt.NDArray[Any]
    starts: npt.NDArray[np.int64]
    pixels: int

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(N,) number of frames per clip."""
        return np.diff(self.starts, append=len(self.counts))

    def per_clip(self, values: npt.NDArray[Any]) -> Floats:
        """Sum values (F, ...) over the frames of each clip; returns (N, ...)."""
        return np.add.reduceat(np.asarray(values, np.float64), self.starts, axis=0)


@dataclass(frozen=True)
class Protocol(ABC):
    """A named, versioned definition of metrics; the docstrings of subclasses state the definitions.

    Attributes:
        name: name in ``--protocol`` and in records.
        main: metrics shown in tables.
        needs_scores: reason why a submission of threshold codes cannot be scored, empty if it can.
        side: height and width to which both maps are resized, ``None`` for the size of the masks.
        batch: clips per batch, ``None`` if the metrics do not depend on batches.
    """

    name: ClassVar[str]
    main: ClassVar[tuple[str, ...]]
    needs_scores: ClassVar[str] = ""
    side: ClassVar[int | None] = None
    batch: int | None = None

    @property
    @abstractmethod
    def count(self) -> Counter:
        """The function that counts one clip; protocols with the same function share its results."""

    @abstractmethod
    def tally(self, frames: Frames) -> Tally:
        """Sum the counts of whole batches of clips."""


class Scorer:
    """Accumulates clips under a protocol.

    The counts of 64 clips at a time are reduced to one row per clip, which bounds the memory.

    Args:
        protocol: the protocol.
        size: (H, W) of the masks.
    """

    _CLIPS = 64

    def __init__(self, protocol: Protocol, size: tuple[int, int]) -> None:
        self.protocol = protocol
        self._pixels = protocol.side**2 if protocol.side else size[0] * size[1]
        self._counts: list[npt.NDArray[Any]] = []
        self._tallies: list[Tally] = []
        batch = protocol.batch or 1
        self._chunk = math.ceil(self._CLIPS / batch) * batch  # never split a batch

    def add(self, counts: npt.NDArray[Any]) -> None:
        """Add the next clip.

        Args:
            counts: result of ``protocol.count`` for the clip.
        """
        self._counts.append(counts)
        if len(self._counts) == self._chunk:
            self._flush()

    def scores(self, clips: Sequence[str], **source: Any) -> Scores:
        """Return the scores of all added clips; ``source`` sets further fields of :class:`Scores`."""
        if self._counts:
            self._flush()
        return Scores(
            protocol=self.protocol.name,
            batch=self.protocol.batch,
            n=len(clips),
            main=self.protocol.main,
            clips=tuple(clips),
            tally=Tally.join(self._tallies),
            **source,
        )

    def _flush(self) -> None:
        lengths = np.array([len(counts) for counts in self._counts])
        frames = Frames(np.concatenate(self._counts), np.cumsum(lengths) - lengths, self._pixels)
        self._tallies.append(self.protocol.tally(frames))
        self._counts.clear()
