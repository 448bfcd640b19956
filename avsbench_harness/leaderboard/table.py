"""Leaderboards as data: a pure function of the records, before anything is printed.

Per task and data set, one row per method, backbone and recipe, over all seeds. Scores of one table share
the protocol and the ground truth; what differs in either gets a table of its own. Synthetic results never
stand beside real ones.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from avsbench_harness.results.measurement import Measurement, measured, read_measurements
from avsbench_harness.results.paired import gap, read_clip_sums
from avsbench_harness.results.record import Record
from avsbench_harness.tasks import TASKS

#: Canonical protocol and its columns (metric, heading) per kind of task.
COLUMNS: dict[str, tuple[tuple[str, str], ...]] = {
    "object/1": (("J", "J (mIoU)"), ("F", "F (β² = 0.3)")),
    "semantic/1": (
        ("mIoU", "mIoU"),
        ("F", "F (β² = 0.3)"),
        ("mIoU_no_background", "mIoU without background"),
    ),
}
#: Further metrics (protocol, metric, heading), shown in tables where some record has them.
EXTRA: tuple[tuple[str, str, str], ...] = (("davis", "J&F", "J&F (davis)"),)


@dataclass(frozen=True)
class Table:
    """Records that may be compared: same task, data, clips, ground truth and protocol."""

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
    def title(self) -> str:
        """Task, data and split in words; every table of synthetic data says that it is."""
        task = TASKS[self.task].title if self.task in TASKS else self.task
        word = ", synthetic" if self.synthetic and self.data != "synthetic" else ""
        part = "" if self.part == "all" else f", {self.part} clips"
        return f"{task}: {self.data}{word}, {self.split}{part}"

    @property
    def columns(self) -> list[tuple[str, str, str]]:
        """(protocol, metric, heading) of every column of scores."""
        own = [(self.protocol, metric, heading) for metric, heading in COLUMNS[self.protocol]]
        return own + [
            (protocol, metric, heading)
            for protocol, metric, heading in EXTRA
            if any(row.values(protocol, metric, self.part) for row in self.rows)
        ]


@dataclass(frozen=True)
class Row:
    """All seeds of one method with one backbone and one recipe.

    Attributes:
        rank: 1 for the best; rows that do not differ significantly from the first of their rank share it.
        measurement: what `avsb bench` found of the row's network, if it did.
    """

    method: str
    variant: str
    backbone: str
    recipe: str
    records: tuple[Record, ...]
    rank: int = 0
    measurement: Measurement | None = None

    def values(self, protocol: str, metric: str, part: str = "all") -> list[float]:
        """The metric in every record that has it."""
        entries = [record.score(protocol, part) for record in self.records]
        values = [entry.metrics.get(metric) for entry in entries if entry is not None]
        return [value for value in values if value is not None]

    @property
    def measured_with(self) -> Record:
        """The record whose cost and speed stand for the row: the newest."""
        return max(self.records, key=lambda record: (record.created, record.run_id))


def tables(records: Iterable[Record], folder: Path | None = None) -> list[Table]:
    """The tables that the records make, real data first, in the order of the tasks.

    Args:
        records: of ``results/``.
        folder: where their per-clip tables lie, by which rows share ranks, and measurements of speed and
            memory; ``None`` ranks by value alone.
    """
    known = read_measurements(folder) if folder is not None else []
    groups: dict[tuple[bool, int, str, str, str, str, str, str], list[Record]] = defaultdict(list)
    failed: list[Record] = []
    order = {name: index for index, name in enumerate(TASKS)}
    for record in records:
        data = record.data
        place = order.get(record.task, len(order))
        if record.status == "failed":
            failed.append(record)
        for entry in record.scores:
            if entry.protocol in COLUMNS:
                key = (
                    data.synthetic, place, record.task, data.name, data.split, entry.part,
                    data.solution or "", entry.protocol,
                )  # fmt: skip
                groups[key].append(record)
    made = []
    for place_in_page, members in sorted(groups.items(), key=lambda item: item[0]):
        synthetic, _, task, name, split, shown, solution, protocol = place_in_page
        found = [replace(row, measurement=measured(row.measured_with, known)) for row in _rows(members)]
        rows = ranked(found, protocol, shown, folder)
        table = Table(task, name, split, shown, solution, synthetic, protocol, rows)
        made.append(replace(table, failed=tuple(one for one in failed if _belongs(one, table))))
    return made


def unplaced(records: Iterable[Record], made: Sequence[Table]) -> list[Record]:
    """Failed runs of data that no table shows, because nothing was scored on it."""
    placed = {record.run_id for table in made for record in table.failed}
    return [record for record in records if record.status == "failed" and record.run_id not in placed]


def ranked(rows: Sequence[Row], protocol: str, part: str, folder: Path | None) -> tuple[Row, ...]:
    """The rows, best first, with their ranks.

    A row shares the rank above it if its first metric does not differ from that of the rank's first row: the
    95 % interval of their difference, by paired bootstrap over clips, holds 0.
    """
    first = COLUMNS[protocol][0][0]

    def mean(row: Row) -> float:
        values = row.values(protocol, first, part)
        return statistics.fmean(values) if values else -1.0

    ordered = sorted(rows, key=lambda row: (-mean(row), row.method, row.variant, row.backbone, row.recipe))
    placed: list[Row] = []
    leader: Row | None = None
    for position, row in enumerate(ordered, 1):
        if (
            leader is not None
            and folder is not None
            and part == "all"
            and _alike(leader, row, protocol, folder)
        ):
            placed.append(replace(row, rank=leader.rank))
            continue
        leader = replace(row, rank=position)
        placed.append(leader)
    return tuple(placed)


def to_json(made: Iterable[Table]) -> list[dict[str, object]]:
    """The tables as plain values."""
    return [
        {
            "task": table.task,
            "data": table.data,
            "split": table.split,
            "part": table.part,
            "solution": table.solution,
            "synthetic": table.synthetic,
            "protocol": table.protocol,
            "rows": [_row_json(row, table) for row in table.rows],
            "failed": [{"run": record.run_id, "reason": record.reason} for record in table.failed],
        }
        for table in made
    ]


def _row_json(row: Row, table: Table) -> dict[str, object]:
    newest = row.measured_with
    return {
        "rank": row.rank,
        "method": row.method,
        "variant": row.variant,
        "backbone": row.backbone,
        "recipe": row.recipe,
        "seeds": len(row.records),
        "metrics": {
            heading: row.values(protocol, metric, table.part) for protocol, metric, heading in table.columns
        },
        "cost": newest.cost.model_dump(mode="json") if newest.cost else None,
        "measurement": row.measurement.name if row.measurement else None,
        "records": [record.run_id for record in row.records],
    }


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
    recipes, data = defaultdict(set), defaultdict(set)
    for key in groups:
        recipes[key[:4]].add(key[4])
        data[key[:4]].add(key[5])
    rows = []
    for (method, variant, backbone, preset, digest, fingerprint), members in groups.items():
        name = method, variant, backbone, preset
        recipe = preset if len(recipes[name]) == 1 else f"{preset} {digest}"
        if len(data[name]) > 1:  # of the same ground truth; seeds are of the same training data as well
            recipe += f", data {fingerprint[:8] or 'n/a'}"
        ordered = tuple(sorted(members, key=lambda record: (record.seed or 0, record.run_id)))
        rows.append(Row(method, variant, backbone, recipe, ordered))
    return rows


def _alike(leader: Row, row: Row, protocol: str, folder: Path) -> bool:
    """Whether two rows do not differ significantly; rows that cannot be compared count as different."""
    ours, theirs = (
        [read_clip_sums(folder / f"{record.run_id}.json", protocol) for record in one.records]
        for one in (leader, row)
    )
    found = gap(ours, theirs, COLUMNS[protocol][0][0])
    return found is not None and found.interval is not None and not found.significant


def _belongs(record: Record, table: Table) -> bool:
    """Whether a failed run would have been scored into a table."""
    data = record.data
    same = (record.task, data.name, data.synthetic) == (table.task, table.data, table.synthetic)
    fingerprints = {one.data.fingerprint for row in table.rows for one in row.records}
    return same and table.part == "all" and data.fingerprint in fingerprints
