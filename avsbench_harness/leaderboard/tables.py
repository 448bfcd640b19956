"""Leaderboard tables: a pure function of the records, independent of the output format.

A table has one row per method, backbone and recipe, over all seeds. All scores of a table share task, data
set, ground truth and protocol; real and synthetic results are never in one table.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from avsbench_harness.results.folder import Bootstrap, Results
from avsbench_harness.results.measurement import Measurement, find_measurement
from avsbench_harness.results.paired_bootstrap import PairedDifference
from avsbench_harness.results.recipe_changes import recipe_label
from avsbench_harness.results.record import Record
from avsbench_harness.scoring.bootstrap import percentile_interval
from avsbench_harness.tasks import TASKS

#: Canonical protocol -> columns (metric, heading).
COLUMNS: dict[str, tuple[tuple[str, str], ...]] = {
    "object/1": (("J", "J"), ("F", "F")),
    "semantic/1": (
        ("mIoU", "mIoU"),
        ("F", "F"),
        ("mIoU_no_background", "mIoU without background"),
    ),
}
#: Optional columns (protocol, metric, heading), shown if a record of the table has the metric.
OPTIONAL_COLUMNS: tuple[tuple[str, str, str], ...] = (("davis", "J&F", "J&F (davis)"),)


@dataclass(frozen=True)
class Table:
    """A table of comparable records: same task, data set, clips, ground truth and protocol."""

    task: str
    data: str
    split: str
    part: str
    solution: str
    synthetic: bool
    protocol: str
    rows: tuple[Row, ...]
    failed: tuple[Record, ...] = ()

    @property
    def mini(self) -> bool:
        """Whether the data set is AVS-Mini, or a variant of it."""
        return self.data.startswith("AVS-Mini ")

    @property
    def title(self) -> str:
        """Task, data set and split, with "synthetic" for synthetic data."""
        task = TASKS[self.task].title if self.task in TASKS else self.task
        synthetic = ", synthetic" if self.synthetic and self.data != "synthetic" else ""
        part = "" if self.part == "all" else f", {self.part} clips"
        return f"{task}: {self.data}{synthetic}, {self.split}{part}"

    @cached_property
    def columns(self) -> list[tuple[str, str, str]]:
        """(protocol, metric, heading) of every score column."""
        own = [(self.protocol, metric, heading) for metric, heading in COLUMNS[self.protocol]]
        return own + [
            (protocol, metric, heading)
            for protocol, metric, heading in OPTIONAL_COLUMNS
            if any(row.values(protocol, metric, self.part) for row in self.rows)
        ]

    @property
    def has_gains(self) -> bool:
        """Whether audio gains of a row are known."""
        return any(row.gains for row in self.rows)


@dataclass(frozen=True)
class Row:
    """All seeds of one method with one backbone and one recipe.

    Attributes:
        rank: 1 for the best; rows that do not differ significantly from the first row of a rank share it.
        measurement: speed and memory of the row's model, if measured by `avsb bench`.
        gains: audio gains of the runs that have been scored with swapped audio (test split).
    """

    method: str
    variant: str
    backbone: str
    recipe: str
    records: tuple[Record, ...]
    rank: int = 0
    measurement: Measurement | None = None
    gains: tuple[PairedDifference, ...] = ()

    def values(self, protocol: str, metric: str, part: str = "all") -> list[float]:
        """The values of a metric, one per record that has it."""
        entries = [record.score(protocol, part) for record in self.records]
        values = [entry.metrics.get(metric) for entry in entries if entry is not None]
        return [value for value in values if value is not None]

    @property
    def newest(self) -> Record:
        """The newest record, whose date, cost and speed are shown for the row."""
        return max(self.records, key=lambda record: (record.created, record.run_id))


def build_tables(records: Iterable[Record], results: Results | None = None) -> list[Table]:
    """The tables of the records, real data first, in the order of the tasks.

    Args:
        records: records of a results folder.
        results: the folder's content, needed for shared ranks, measurements of speed and memory, and audio
            gains; ``None`` ranks by value alone.
    """
    measurements = results.measurements if results is not None else ()
    bootstraps = results.bootstraps if results is not None else {}
    gains = results.gains if results is not None else {}
    groups: dict[tuple[bool, int, str, str, str, str, str, str], list[Record]] = defaultdict(list)
    failed: list[Record] = []
    order = {name: index for index, name in enumerate(TASKS)}
    for record in records:
        data = record.data
        task_order = order.get(record.task, len(order))
        if record.status == "failed":
            failed.append(record)
        for entry in record.scores:
            if entry.protocol in COLUMNS:
                key = (
                    data.synthetic, task_order, record.task, data.name, data.split, entry.part,
                    data.solution or "", entry.protocol,
                )  # fmt: skip
                groups[key].append(record)
    tables = []
    for key, members in sorted(groups.items(), key=lambda item: item[0]):
        synthetic, _, task, name, split, part, solution, protocol = key
        whole_test = (split, part) == ("test", "all")
        rows = [
            replace(
                row,
                measurement=find_measurement(row.newest, measurements),
                gains=tuple(gains[one.run_id] for one in row.records if whole_test and one.run_id in gains),
            )
            for row in _rows(members)
        ]
        ranked = _rank(rows, protocol, part, bootstraps)
        table = Table(task, name, split, part, solution, synthetic, protocol, ranked)
        tables.append(replace(table, failed=tuple(record for record in failed if _belongs(record, table))))
    return tables


def unplaced_failures(records: Iterable[Record], tables: Sequence[Table]) -> list[Record]:
    """Failed runs that are in no table because there are no scores on their data."""
    placed = {record.run_id for table in tables for record in table.failed}
    return [record for record in records if record.status == "failed" and record.run_id not in placed]


def _rank(
    rows: Sequence[Row], protocol: str, part: str, bootstraps: Mapping[str, Bootstrap]
) -> tuple[Row, ...]:
    """Sort the rows by their first metric, best first, and set their ranks.

    A row has the rank of the row above if it does not differ significantly from the first row of that rank:
    the 95 % interval of the difference of their first metric (paired bootstrap over clips) contains 0.
    """
    metric = COLUMNS[protocol][0][0]

    def mean(row: Row) -> float:
        values = row.values(protocol, metric, part)
        return statistics.fmean(values) if values else -1.0

    ordered = sorted(rows, key=lambda row: (-mean(row), row.method, row.variant, row.backbone, row.recipe))
    placed: list[Row] = []
    leader: Row | None = None
    for position, row in enumerate(ordered, 1):
        if leader is not None and part == "all" and _equivalent(leader, row, bootstraps):
            placed.append(replace(row, rank=leader.rank))
            continue
        leader = replace(row, rank=position)
        placed.append(leader)
    return tuple(placed)


def _rows(records: Sequence[Record]) -> list[Row]:
    groups: dict[tuple[str, str, str, str, str, str], list[Record]] = defaultdict(list)
    for record in records:
        key = (
            record.method,
            record.variant or "",
            record.backbone or "",
            record.preset or "submitted",
            record.recipe_hash or record.run_id,
            (record.data.fingerprint or "") if record.spec else "",
        )
        groups[key].append(record)
    recipes, data = defaultdict(set), defaultdict(set)  # variants of what would have one name
    for key in groups:
        recipes[key[:4]].add(key[4])
        data[key[:4]].add(key[5])
    rows = []
    for (method, variant, backbone, preset, digest, fingerprint), members in groups.items():
        name = method, variant, backbone, preset
        recipe = recipe_label(members[0])
        if len(recipes[name]) > 1:  # the labels of different recipes may be equal
            recipe += f" {digest}"
        if len(data[name]) > 1:  # same ground truth, other training data
            recipe += f", data {fingerprint[:8] or 'n/a'}"
        ordered = tuple(sorted(members, key=lambda record: (record.seed or 0, record.run_id)))
        rows.append(Row(method, variant, backbone, recipe, ordered))
    return rows


def _equivalent(leader: Row, row: Row, bootstraps: Mapping[str, Bootstrap]) -> bool:
    """Whether two rows can be compared and do not differ significantly in their first metric."""
    ours, theirs = ([bootstraps.get(record.run_id) for record in one.records] for one in (leader, row))
    known = [one for one in (*ours, *theirs) if one is not None and one.resampled.size]
    if len(known) < len(ours) + len(theirs) or len({one.clips for one in known}) > 1:
        return False
    signs = [1 / len(ours)] * len(ours) + [-1 / len(theirs)] * len(theirs)
    value = sum(sign * one.value for sign, one in zip(signs, known, strict=True))
    if not np.isfinite(value):
        return False
    resampled = np.sum([sign * one.resampled for sign, one in zip(signs, known, strict=True)], axis=0)
    difference = PairedDifference(value, percentile_interval(resampled))
    return difference.interval is not None and not difference.significant


def _belongs(record: Record, table: Table) -> bool:
    """Whether a failed run is one of the table's data."""
    data = record.data
    same = (record.task, data.name, data.synthetic) == (table.task, table.data, table.synthetic)
    fingerprints = {one.data.fingerprint for row in table.rows for one in row.records}
    return same and table.part == "all" and data.fingerprint in fingerprints
