"""Scores: the numbers of one submission under one protocol, with intervals and tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from avsbench_harness.scoring.bootstrap import bootstrap_intervals

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]
#: Metrics from column sums: (..., K) -> {name: (...)}; NaN where a metric is not defined.
Reduce = Callable[[Floats], dict[str, Floats]]


@dataclass(frozen=True)
class Tally:
    """What a protocol found, in a form that resampling can add up again.

    Attributes:
        sums: (R,K) one row per unit that is averaged over: a clip, or a batch where the protocol has batches.
        reduce: the metrics of any multiset of rows, from the sum of the rows.
        per_clip: columns of the per-clip table, N entries each.
        per_class: columns of the per-class table from column sums (K,), ``None`` in object protocols.
        curve: F over thresholds from column sums, where the protocol has one.
        class_sums: names of the blocks of ``sums``, one column per class each; ``None`` in object protocols.
    """

    sums: Floats
    reduce: Reduce
    per_clip: dict[str, npt.NDArray[Any]]
    per_class: Callable[[Floats], dict[str, npt.NDArray[Any]]] | None = None
    class_sums: tuple[str, ...] | None = None
    curve: Callable[[Floats], Floats] | None = None

    @classmethod
    def join(cls, tallies: Sequence[Tally]) -> Tally:
        """The tally of all clips from those of its parts, of one protocol and in order."""
        columns = {
            name: np.concatenate([tally.per_clip[name] for tally in tallies]) for name in tallies[0].per_clip
        }
        return replace(tallies[0], sums=np.concatenate([tally.sums for tally in tallies]), per_clip=columns)


@dataclass(frozen=True, eq=False)
class Scores:
    """The result of one protocol.

    Attributes:
        protocol: its name; a metric means nothing without it.
        batch: clips per batch, ``None`` where the protocol has no batches.
        n: number of clips.
        main: the metrics that tables show, a subset of :attr:`metrics`.
        clips: ids in the order scored.
        tally: the sums behind the metrics.
        solution: fingerprint of the ground truth, empty if scored from arrays.
        dataset: its name, empty if scored from arrays.
        part: ``all``, ``public`` or ``private`` clips of the solution.
        synthetic: whether the data set was drawn by a program; to be shown beside every number.
    """

    protocol: str
    batch: int | None
    n: int
    main: tuple[str, ...]
    clips: tuple[str, ...]
    tally: Tally = field(repr=False)
    solution: str = ""
    dataset: str = ""
    part: str = "all"
    synthetic: bool = False

    @cached_property
    def metrics(self) -> dict[str, float | None]:
        """Every metric of the protocol, float64; ``None`` where it is not defined on these clips."""
        values = self.tally.reduce(self.tally.sums.sum(axis=0))
        return {name: _number(value) for name, value in values.items()}

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float] | None]:
        """95 % intervals of the main metrics by bootstrap over clips (batches), always from the same seed.

        ``None`` where fewer than two units, or an undefined metric, leave nothing to resample.
        """
        return bootstrap_intervals(self.tally.sums, self.tally.reduce, self.main)

    @cached_property
    def per_clip(self) -> pd.DataFrame:
        """One row per clip: ``clip``, ``frames`` and the clip's own metrics."""
        import pandas as pd

        return pd.DataFrame({"clip": list(self.clips), **self.tally.per_clip})

    @cached_property
    def per_class(self) -> pd.DataFrame | None:
        """One row per class in semantic protocols, else ``None``."""
        import pandas as pd

        if self.tally.per_class is None:
            return None
        return pd.DataFrame(self.tally.per_class(self.tally.sums.sum(axis=0)))

    @cached_property
    def per_clip_class(self) -> pd.DataFrame | None:
        """One row per clip and class in it: ``clip``, ``class`` and the sums that metrics are made of.

        ``None`` for protocols without classes.
        """
        import pandas as pd

        if self.tally.class_sums is None:
            return None
        sums = self.tally.sums.reshape(len(self.clips), len(self.tally.class_sums), -1)
        clips, classes = np.nonzero(sums.any(axis=1))
        columns = {name: sums[clips, i, classes] for i, name in enumerate(self.tally.class_sums)}
        return pd.DataFrame({"clip": np.array(self.clips)[clips], "class": classes, **columns})

    @cached_property
    def mean_curve(self) -> Floats | None:
        """(255,) F over the thresholds, the mean over clips with an object; ``None`` without such a curve."""
        return None if self.tally.curve is None else self.tally.curve(self.tally.sums.sum(axis=0))

    @property
    def label(self) -> str:
        """The protocol's name, with the batch size where it has one."""
        return self.protocol if self.batch is None else f"{self.protocol} (batch {self.batch})"

    def to_json(self) -> dict[str, Any]:
        """Everything but the tables, as JSON values; undefined metrics are null."""
        intervals = {name: None if pair is None else list(pair) for name, pair in self.intervals.items()}
        return {
            "protocol": self.protocol,
            "batch": self.batch,
            "n": self.n,
            "part": self.part,
            "dataset": self.dataset,
            "synthetic": self.synthetic,
            "solution": self.solution,
            "main": list(self.main),
            "metrics": self.metrics,
            "intervals": intervals,
        }


@dataclass(frozen=True)
class Unavailable:
    """A protocol that cannot be computed from a submission, and why."""

    protocol: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"protocol": self.protocol, "unavailable": self.reason}


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Elementwise quotient, NaN where the denominator is 0: nothing to average over."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def _number(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
