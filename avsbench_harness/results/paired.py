"""Are two rows of a table different? A paired bootstrap over clips, from what lies beside the records.

Both sides are scored on the same resamples of the same clips. Where a row has several seeds, its metric is
the mean over them, as in the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from avsbench_harness.errors import UsageError
from avsbench_harness.results.record import classes_file, clips_file
from avsbench_harness.scoring.bootstrap import LEVEL, resampled_sums
from avsbench_harness.scoring.scores import Floats, Reduce, ratio
from avsbench_harness.scoring.semantic import SemanticCanonical
from avsbench_harness.tasks import CLASSES


@dataclass(frozen=True)
class ClipSums:
    """The scores of a record's clips, in a form that resampling can add up again.

    Attributes:
        clips: their ids.
        sums: (N,K), one row per clip.
        reduce: metrics from column sums.
    """

    clips: tuple[str, ...]
    sums: Floats
    reduce: Reduce


@dataclass(frozen=True)
class Gap:
    """How much one row is above another in one metric.

    Attributes:
        value: the difference of the means over seeds.
        interval: its 95 % interval over clips; ``None`` with fewer than two clips.
    """

    value: float
    interval: tuple[float, float] | None

    @property
    def significant(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)


def read_clip_sums(record_file: Path, protocol: str) -> ClipSums:
    """What a record's tables say of its clips under a canonical protocol.

    Raises:
        UsageError: the tables are missing or damaged.
    """
    path = clips_file(record_file)
    try:
        table = _read(path)
        clips = tuple(table["clip"])
        if protocol == SemanticCanonical.name:
            return ClipSums(clips, _class_sums(classes_file(record_file), clips), SemanticCanonical().reduce)
        return ClipSums(clips, _object_sums(table), _reduce_object)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"The per-clip table {path} of a record is missing or damaged ({error}); score the run anew."
        ) from None


def gap(ours: Sequence[ClipSums], theirs: Sequence[ClipSums], metric: str) -> Gap | None:
    """Our row minus theirs, each a list of seeds; ``None`` where clips differ or the metric is undefined."""
    rows = [*ours, *theirs]
    if not ours or not theirs or any(row.clips != rows[0].clips for row in rows):
        return None
    signs = [1 / len(ours)] * len(ours) + [-1 / len(theirs)] * len(theirs)

    def difference(sums: Sequence[Floats]) -> Floats:
        terms = [sign * row.reduce(total)[metric] for sign, row, total in zip(signs, rows, sums, strict=True)]
        total: Floats = np.sum(terms, axis=0)
        return total

    value = float(difference([row.sums.sum(axis=0) for row in rows]))
    if not np.isfinite(value):
        return None
    drawn = np.concatenate([difference(chunk) for chunk in resampled_sums([row.sums for row in rows])])
    drawn = drawn[np.isfinite(drawn)]
    if len(rows[0].clips) < 2 or not drawn.size:
        return Gap(value, None)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Gap(value, (float(low), float(high)))


def _object_sums(table: pd.DataFrame) -> Floats:
    """(N,4): 1 and J, then 1 and F of the clips that have an F (object/1)."""
    j, f = _numbers(table["J"]), _numbers(table["F"])
    has = np.isfinite(f)
    return np.column_stack([np.ones(len(j)), j, has, np.where(has, f, 0)])


def _reduce_object(sums: Floats) -> dict[str, Floats]:
    clips, j, with_f, f = np.moveaxis(sums, -1, 0)
    return {"J": ratio(j, clips), "F": ratio(f, with_f)}


def _read(path: Path) -> pd.DataFrame:
    """A table as text: a clip may be called ``NA``, and numbers are read to the last digit."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _numbers(column: pd.Series[str]) -> Floats:
    """Text as numbers, NaN where there is none."""
    return np.array([float(text) if text else np.nan for text in column])


def _class_sums(path: Path, clips: Sequence[str]) -> Floats:
    """(N,213): sums of IoU and F and numbers of frames, 71 each (semantic/1)."""
    table = _read(path)
    place = {clip: index for index, clip in enumerate(clips)}
    rows = table["clip"].map(place).to_numpy()
    columns = table["class"].astype(int).to_numpy()
    sums = np.zeros((len(clips), 3, len(CLASSES)))
    for block, name in enumerate(("IoU", "F", "frames")):
        sums[rows, block, columns] = _numbers(table[name])
    return sums.reshape(len(clips), -1)
