"""Paired bootstrap over clips between two rows of a table, from the per-clip files of the records.

Both rows are evaluated on the same resamples of the same clips. The metric of a row with several seeds is
the mean over its seeds, as in the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avsbench_harness.errors import UsageError, one_line
from avsbench_harness.results.clip_table import ClipSums, parse_object_table, parse_semantic_tables
from avsbench_harness.results.record import Record, classes_file, clips_file
from avsbench_harness.scoring.bootstrap import percentile_interval, resampled_sums
from avsbench_harness.scoring.scores import Floats
from avsbench_harness.scoring.semantic import SemanticCanonical
from avsbench_harness.tasks import AVSS, S4


@dataclass(frozen=True)
class PairedDifference:
    """Difference between two rows in one metric.

    Attributes:
        value: difference of the means over seeds.
        interval: 95 % interval over clips; ``None`` with fewer than two clips.
    """

    value: float
    interval: tuple[float, float] | None

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)


def read_clip_sums(record_file: Path, protocol: str) -> ClipSums:
    """Read the per-clip files of a record.

    Args:
        record_file: ``<run-id>.json``.
        protocol: a canonical protocol.

    Raises:
        UsageError: a file is missing or damaged.
    """
    path = clips_file(record_file)
    try:
        content = path.read_bytes()
        if protocol == SemanticCanonical.name:
            return parse_semantic_tables(content, classes_file(record_file).read_bytes(), AVSS)
        return parse_object_table(content, S4)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"The per-clip file {path} of a record is missing or damaged ({one_line(error, 200)}); score the "
            "run again."
        ) from None


def read_seeds(records: Iterable[Record], folder: Path, protocol: str) -> list[ClipSums]:
    """The per-clip sums of the records of one row.

    Args:
        records: one per seed.
        folder: the folder of the records.
        protocol: a canonical protocol.
    """
    return [read_clip_sums(folder / f"{record.run_id}.json", protocol) for record in records]


def paired_difference(
    ours: Sequence[ClipSums], theirs: Sequence[ClipSums], metric: str
) -> PairedDifference | None:
    """The metric of ``ours`` minus that of ``theirs``.

    Args:
        ours, theirs: per-clip sums of each seed of a row.
        metric: a metric of the protocol.

    Returns:
        ``None`` if a row is empty, the clips differ or the metric is undefined.
    """
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
    resampled = np.concatenate([difference(chunk) for chunk in resampled_sums([row.sums for row in rows])])
    return PairedDifference(value, percentile_interval(resampled) if len(rows[0].clips) > 1 else None)
