"""What a protocol is: counts per frame of a clip, then metrics from the counts of all clips."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from avsbench_harness.scoring.scores import Floats, Scores, Tally

#: (codes or labels (T,H,W), truth (T,H,W)), both uint8 and real frames only -> counts per frame (T, ...).
Counter = Callable[[npt.NDArray[Any], npt.NDArray[np.uint8]], npt.NDArray[Any]]


@dataclass(frozen=True)
class Frames:
    """The frames of some clips, one after another.

    Attributes:
        counts: (F, ...) what ``count`` gave per frame.
        starts: (N,) index of each clip's first frame.
        pixels: pixels per frame.
    """

    counts: npt.NDArray[Any]
    starts: npt.NDArray[np.int64]
    pixels: int

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(N,) frames per clip."""
        return np.diff(self.starts, append=len(self.counts))

    def per_clip(self, values: npt.NDArray[Any]) -> Floats:
        """(N, ...) sums over the frames of each clip of per-frame values (F, ...)."""
        return np.add.reduceat(np.asarray(values, np.float64), self.starts, axis=0)


@dataclass(frozen=True)
class Protocol(ABC):
    """A named and versioned definition of metrics; subclasses define it in their docstring.

    Attributes:
        name: as ``--protocol`` and records give it.
        main: the metrics of a table's columns.
        needs_scores: why a coded submission cannot be scored, empty if it can.
        side: height and width to which both maps are brought, ``None`` for the masks' own size.
        batch: clips per batch, ``None`` where the metrics do not depend on batches.
    """

    name: ClassVar[str]
    main: ClassVar[tuple[str, ...]]
    needs_scores: ClassVar[str] = ""
    side: ClassVar[int | None] = None
    batch: int | None = None

    @property
    @abstractmethod
    def count(self) -> Counter:
        """The counts of one clip; protocols that return the same function share one pass over the pixels."""

    @abstractmethod
    def tally(self, frames: Frames) -> Tally:
        """Add up the counts of whole batches of clips."""


class Scorer:
    """Adds up clips under a protocol, one after another.

    The counts of a clip are kept until some dozens are together and then turned into a row each, so memory
    hardly grows with the number of clips.

    Args:
        protocol: which.
        size: (H, W) of the masks.
    """

    _CLIPS = 64

    def __init__(self, protocol: Protocol, size: tuple[int, int]) -> None:
        self.protocol = protocol
        self._pixels = protocol.side**2 if protocol.side else size[0] * size[1]
        self._counts: list[npt.NDArray[Any]] = []
        self._tallies: list[Tally] = []
        batch = protocol.batch or 1
        self._chunk = math.ceil(self._CLIPS / batch) * batch  # no batch is cut in two

    def add(self, counts: npt.NDArray[Any]) -> None:
        """Add the next clip by its counts per frame, of ``protocol.count``."""
        self._counts.append(counts)
        if len(self._counts) == self._chunk:
            self._fold()

    def scores(self, clips: Sequence[str], **source: Any) -> Scores:
        """The scores of all clips added; ``source`` as fields of ``Scores``."""
        if self._counts:
            self._fold()
        return Scores(
            protocol=self.protocol.name,
            batch=self.protocol.batch,
            n=len(clips),
            main=self.protocol.main,
            clips=tuple(clips),
            tally=Tally.join(self._tallies),
            **source,
        )

    def _fold(self) -> None:
        lengths = np.array([len(counts) for counts in self._counts])
        frames = Frames(np.concatenate(self._counts), np.cumsum(lengths) - lengths, self._pixels)
        self._tallies.append(self.protocol.tally(frames))
        self._counts.clear()
