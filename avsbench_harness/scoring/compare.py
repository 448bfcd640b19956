"""Paired comparison of two submissions on the same clips."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from avsbench_harness.errors import UsageError
from avsbench_harness.scoring.bootstrap import percentile_interval, resampled_sums
from avsbench_harness.scoring.scores import Scores

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Difference:
    """Difference of one metric, A minus B.

    Attributes:
        a, b: values of the metric; ``None`` if undefined.
        difference: a - b.
        interval: 95 % percentile interval of the difference by paired bootstrap over clips.
        better: share of resamples in which A is above B; ties count half.
        wins, losses, ties: number of clips on which A is above, below and equal to B; ``None`` if the metric
            is not defined per clip.
    """

    metric: str
    a: float | None
    b: float | None
    difference: float | None
    interval: tuple[float, float] | None
    better: float | None
    wins: int | None
    losses: int | None
    ties: int | None

    @property
    def win_rate(self) -> float | None:
        """Share of clips on which A is above B; ties count half."""
        if self.wins is None or self.losses is None or self.ties is None:
            return None
        clips = self.wins + self.losses + self.ties
        return (self.wins + self.ties / 2) / clips if clips else None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Result of :func:`compare`: the scores of A and B under one protocol, and their differences."""

    a: Scores
    b: Scores
    differences: tuple[Difference, ...]

    @cached_property
    def per_clip(self) -> pd.DataFrame:
        """One row per clip with the main metrics of A and B and their differences.

        Sorted by the absolute difference of the first main metric that is defined per clip, largest first.
        """
        import pandas as pd

        table = pd.DataFrame({"clip": list(self.a.clips)})
        names = [name for name in self.a.main if name in self.a.per_clip]
        for name in names:
            table[f"{name}_a"] = self.a.per_clip[name]
            table[f"{name}_b"] = self.b.per_clip[name]
            table[f"{name}_difference"] = table[f"{name}_a"] - table[f"{name}_b"]
        if not names:
            return table
        order = table[f"{names[0]}_difference"].abs().sort_values(ascending=False, kind="stable").index
        return table.loc[order].reset_index(drop=True)

    def to_json(self, clips: int = 10) -> dict[str, Any]:
        """JSON values, with the ``clips`` clips that differ most."""
        rows = self.per_clip.head(clips).to_dict(orient="records")
        return {
            "protocol": self.a.protocol,
            "batch": self.a.batch,
            "n": self.a.n,
            "solution": self.a.solution,
            "dataset": self.a.dataset,
            "synthetic": self.a.synthetic,
            "differences": [
                {
                    **vars(difference),
                    "interval": None if difference.interval is None else list(difference.interval),
                    "win_rate": difference.win_rate,
                }
                for difference in self.differences
            ],
            "clips": [{key: _json(value) for key, value in row.items()} for row in rows],
        }


def compare(a: Scores, b: Scores) -> Comparison:
    """Compare two submissions by paired bootstrap over clips.

    Raises:
        UsageError: the scores differ in protocol, solution or clips.
    """
    for name, ours, theirs in (
        ("protocol", a.label, b.label),
        ("solution", a.solution, b.solution),
        ("clips", a.clips, b.clips),
    ):
        if ours != theirs:
            shown = f": {ours} and {theirs}" if name != "clips" else ""
            raise UsageError(f"Cannot compare scores of different {name}{shown}; score both the same way.")
    tables = [a.tally.sums, b.tally.sums]
    chunks = [
        {name: first[name] - second[name] for name in a.main}
        for first, second in (
            (a.tally.reduce(ours), b.tally.reduce(theirs)) for ours, theirs in resampled_sums(tables)
        )
    ]
    resampled = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in a.main}
    return Comparison(a, b, tuple(_difference(a, b, name, resampled[name]) for name in a.main))


def _difference(a: Scores, b: Scores, name: str, resampled: Any) -> Difference:
    ours, theirs = a.metrics[name], b.metrics[name]
    difference = None if ours is None or theirs is None else ours - theirs
    interval = better = None
    resampled = resampled[np.isfinite(resampled)]
    if difference is not None and resampled.size and len(a.tally.sums) > 1:
        interval = percentile_interval(resampled)
        better = float(np.mean(resampled > 0) + np.mean(resampled == 0) / 2)
    wins = losses = ties = None
    if name in a.per_clip:
        change = (a.per_clip[name] - b.per_clip[name]).dropna()
        wins, losses, ties = int((change > 0).sum()), int((change < 0).sum()), int((change == 0).sum())
    return Difference(name, ours, theirs, difference, interval, better, wins, losses, ties)


def _json(value: Any) -> Any:
    """A table cell as a JSON value; NaN becomes null."""
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value
