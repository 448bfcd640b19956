"""Scores of one submission under one protocol: metrics, intervals and tables."""

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
#: Metrics from column sums: (..., K) -> {name: (...)}; NaN if a metric is undefined.
Reduce = Callable[[Floats], dict[str, Floats]]


@dataclass(frozen=True)
class Tally:
    """Sums over which metrics are averaged, in a form suited to resampling.

    Attributes:
        sums: (R,K), one row per clip, or per batch if the protocol has batches.
        reduce: metrics of a multiset of rows, from the sum of the rows.
        per_clip: columns of the per-clip table, N entries each.
        per_class: columns of the per-class table from column sums (K,); ``None`` in object protocols.
        curve: (255,) F over thresholds from column sums (K,); ``None`` if the protocol has none.
        class_sums: names of the blocks of ``sums``, each with one column per class; ``None`` in object
            protocols.
    """

    sums: Floats
    reduce: Reduce
    per_clip: dict[str, npt.NDArray[Any]]
    per_class: Callable[[Floats], dict[str, npt.NDArray[Any]]] | None = None
    class_sums: tuple[str, ...] | None = None
    curve: Callable[[Floats], Floats] | None = None

    @classmethod
    def join(cls, tallies: Sequence[Tally]) -> Tally:
        """Concatenate tallies of consecutive clips under one protocol."""
        columns = {
            name: np.concatenate([tally.per_clip[name] for tally in tallies]) for name in tallies[0].per_clip
        }
        return replace(tallies[0], sums=np.concatenate([tally.sums for tally in tallies]), per_clip=columns)


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of a submission under one protocol.

    Attributes:
        protocol: name of the protocol that defines the metrics.
        batch: clips per batch, ``None`` if the protocol has no batches.
        n: number of clips.
        main: metrics shown in tables, a subset of :attr:`metrics`.
        clips: ids in scoring order.
        tally: the sums that the metrics are computed from.
        solution: fingerprint of the ground truth, empty if scored from arrays.
        dataset: name of the data set, empty if scored from arrays.
        part: scored clips: ``all``, ``public`` or ``private``.
        synthetic: whether the data set is synthetic; must be shown with every score.
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
        """All metrics of the protocol; ``None`` if undefined on these clips."""
        values = self.tally.reduce(self.tally.sums.sum(axis=0))
        return {name: _number(value) for name, value in values.items()}

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float] | None]:
        """95 % intervals of the main metrics by bootstrap over clips (or batches), with a fixed random seed.

        ``None`` with fewer than two clips (or batches) or for an undefined metric.
        """
        return bootstrap_intervals(self.tally.sums, self.tally.reduce, self.main)

    @cached_property
    def per_clip(self) -> pd.DataFrame:
        """One row per clip: ``clip``, ``frames`` and the metrics of the clip."""
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
        """One row per clip and class of the clip: ``clip``, ``class`` and the sums for the metrics.

        ``None`` for object protocols.
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
        """(255,) mean F at each threshold over the clips with an object; ``None`` if not available."""
        return None if self.tally.curve is None else self.tally.curve(self.tally.sums.sum(axis=0))

    @property
    def label(self) -> str:
        """Name of the protocol, with the batch size if it has one."""
        return self.protocol if self.batch is None else f"{self.protocol} (batch {self.batch})"

    def to_json(self) -> dict[str, Any]:
        """JSON values without the tables; undefined metrics are null."""
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
    """A protocol that cannot be computed from a submission, with the reason."""

    protocol: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"protocol": self.protocol, "unavailable": self.reason}


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Elementwise quotient, NaN where the denominator is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def _number(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
