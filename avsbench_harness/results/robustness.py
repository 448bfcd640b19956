"""Robustness records by ``avsb robustness``: one JSON file per run and split in ``results/robustness/``.

A record is immutable and does not depend on the machine. Beside ``<name>.json``, ``<name>.clips.csv`` holds
the scores of every clip under every condition in rows of ``condition``, ``clip``, ``source`` (the clip whose
recording was used) and the columns of a run's per-clip file, and in ``overlap`` the mean IoU with the clean
prediction; for avss ``<name>.classes.csv`` holds the sums per clip and class. Every value of a record follows
from these tables.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from avsbench_harness.errors import AvsbError, UsageError, one_line
from avsbench_harness.files import atomic_write, read_json, write_json
from avsbench_harness.results.clip_table import (
    MAX_BYTES,
    ClipSums,
    parse_object_table,
    parse_semantic_tables,
)
from avsbench_harness.results.paired_bootstrap import PairedDifference, paired_difference
from avsbench_harness.results.record import DataEntry, ScoreEntry, classes_file, clips_file, is_run_id
from avsbench_harness.results.score_faults import (
    TOLERANCE,
    equal,
    form_faults,
    interval_faults,
    metric_faults,
)
from avsbench_harness.robustness.conditions import CLEAN, CONDITIONS, SWAPPED
from avsbench_harness.robustness.pairs import fingerprint_pairs
from avsbench_harness.schema import Schema
from avsbench_harness.scoring.api import canonical
from avsbench_harness.scoring.bootstrap import resampled_sums
from avsbench_harness.scoring.scores import Floats
from avsbench_harness.tasks import SPLITS, TASKS, get_task

if TYPE_CHECKING:
    import pandas as pd

ROBUSTNESS_FORMAT: Literal[1] = 1

#: Subfolder of the results folder with the robustness records.
FOLDER = "robustness"

_Sha256 = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]


class GainEntry(Schema):
    """Audio gain in one metric: clean minus the condition.

    Attributes:
        value: the difference; ``None`` if the metric is undefined.
        interval: 95 % interval by paired bootstrap over clips; ``None`` with fewer than two clips.
    """

    value: float | None
    interval: tuple[float, float] | None


class ConditionEntry(Schema):
    """The results under one condition.

    Attributes:
        condition: name of the condition.
        submission_sha256: SHA-256 of the predictions.
        score: canonical scores.
        pairs: fingerprint of the pairs of clip and recording; ``None`` for ``clean``.
        gain: per main metric the audio gain; ``None`` for ``clean``.
        sensitivity: audio sensitivity, in [0, 1]; ``None`` for ``clean``.
    """

    condition: str
    submission_sha256: _Sha256
    score: ScoreEntry
    pairs: _Sha256 | None = None
    gain: dict[str, GainEntry] | None = None
    sensitivity: Annotated[float, Field(ge=0, le=1)] | None = None


class RobustnessRecord(Schema):
    """A run under several audio conditions, on the same clips.

    Attributes:
        run_id, spec_hash: of the run.
        task, data: task, and data set, split and ground truth.
        left_out: ids of the clips that a condition leaves out, and that are scored under none.
        conditions: the results; ``clean`` is the first.
    """

    format: Literal[1] = ROBUSTNESS_FORMAT
    run_id: str
    spec_hash: _Sha256
    task: str
    data: DataEntry
    left_out: list[str]
    conditions: list[ConditionEntry]

    @property
    def name(self) -> str:
        """Unique name, the stem of the file."""
        return record_name(self.run_id, self.data.split)

    def condition(self, name: str) -> ConditionEntry | None:
        """Return the results under a condition, ``None`` if there are none."""
        return next((entry for entry in self.conditions if entry.condition == name), None)


@dataclass(frozen=True)
class ConditionTable:
    """The rows of one condition in the per-clip table.

    Attributes:
        sums: per-clip sums of the canonical protocol.
        sources: per clip id the clip whose recording was used.
        overlaps: (N,) mean IoU with the clean prediction; NaN for ``clean``.
    """

    sums: ClipSums
    sources: Mapping[str, str]
    overlaps: Floats


def record_name(run_id: str, split: str) -> str:
    """The stem of the file of a run's robustness record."""
    return run_id if split == "test" else f"{run_id}-{split}"


def robustness_file(results: Path, run_id: str, split: str) -> Path:
    """The file of a run's robustness record in a results folder."""
    return results / FOLDER / f"{record_name(run_id, split)}.json"


def write_robustness(
    path: Path, record: RobustnessRecord, clips: pd.DataFrame, classes: pd.DataFrame | None
) -> None:
    """Write a robustness record and its tables.

    Args:
        path: see :func:`robustness_file`.
        record: the record.
        clips: the per-clip table.
        classes: the sums per clip and class of all conditions, for avss.

    Raises:
        UsageError: the record exists.
    """
    if path.exists():
        raise UsageError(f"{path} exists, and records are immutable; remove it to measure the run again.")
    for file, table in ((clips_file(path), clips), (classes_file(path), classes)):
        if table is not None:
            with atomic_write(file) as opened:
                table.to_csv(opened, index=False, lineterminator="\n", float_format="%.17g")
    write_json(path, record.model_dump(mode="json"))


def read_robustness(path: Path) -> RobustnessRecord:
    """Read one robustness record, without checks of its values.

    Raises:
        UsageError: the file does not hold a robustness record.
    """
    return RobustnessRecord.parse(read_json(path), str(path), "a robustness record")


@dataclass(frozen=True)
class Gain:
    """The audio gain of a run.

    Attributes:
        run_id: of the run.
        solution: fingerprint of the ground truth.
        difference: in the first main metric (J, mIoU); ``None`` if the robustness record is of another split
            than test, lacks the condition, or the gain is undefined.
    """

    run_id: str
    solution: str | None
    difference: PairedDifference | None


def read_gain(path: Path, condition: str = SWAPPED) -> Gain:
    """Read the audio gain of a robustness record.

    Args:
        path: file of the record.
        condition: name of the condition.

    Raises:
        UsageError: the record has faults; the message is the first one.
    """
    for fault in robustness_faults(path):
        raise UsageError(fault)
    record = read_robustness(path)
    entry = record.condition(condition) if record.data.split == "test" else None
    gain = entry and entry.gain and entry.gain[entry.score.main[0]]
    difference = None
    if gain and gain.value is not None:
        difference = PairedDifference(gain.value, gain.interval)
    return Gain(record.run_id, record.data.solution, difference)


def robustness_files(results: Path) -> list[Path]:
    """The files of all robustness records in a results folder, sorted by name."""
    return sorted((results / FOLDER).glob("*.json"))


def robustness_faults(path: Path) -> Iterator[str]:
    """Faults of a robustness record and its tables, one sentence each."""
    try:
        record = read_robustness(path)
        yield from _form_faults(path, record)
        yield from _value_faults(record, read_tables(path, record))
    except (AvsbError, OSError, ValueError) as error:
        yield f"unreadable, or its per-clip file is missing or damaged: {one_line(error, 300)}"


def read_tables(path: Path, record: RobustnessRecord) -> dict[str, ConditionTable]:
    """Read the tables of a robustness record by condition.

    Raises:
        OSError: a file is missing.
        ValueError: a file is damaged.
    """
    task = get_task(record.task)
    clips = _by_condition(clips_file(path))
    classes = _by_condition(classes_file(path)) if task.semantic else {}
    found = {}
    for name, rows in clips.items():
        table = _csv(rows, without=("condition", "source", "overlap"))
        if task.semantic:
            sums = parse_semantic_tables(table, _csv(classes.get(name, []), without=("condition",)), task)
        else:
            sums = parse_object_table(table, task)
        sources = {row["clip"]: row["source"] for row in rows}
        overlaps = np.array([float(row["overlap"] or "nan") for row in rows])
        found[name] = ConditionTable(sums, sources, overlaps)
    return found


def _by_condition(path: Path) -> dict[str, list[dict[str, str]]]:
    """The rows of a table by their condition.

    Raises:
        ValueError: the file is too large or no table.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path.name} has more than {MAX_BYTES >> 20} MiB")
    found: dict[str, list[dict[str, str]]] = {}
    reader = csv.DictReader(io.StringIO(content.decode("utf-8"), newline=""), strict=True)
    for row in reader:
        values = [*row.values()]
        if None in row or None in values or "condition" not in row:
            raise ValueError(f"{path.name} has a truncated or overlong row, or no column condition")
        found.setdefault(row["condition"], []).append(row)
    return found


def _csv(rows: Sequence[Mapping[str, str]], without: Sequence[str]) -> bytes:
    """Rows as a CSV file without some columns.

    Raises:
        ValueError: there are no rows, or a column is missing.
    """
    if not rows or not set(without) <= set(rows[0]):
        raise ValueError(f"rows or one of the columns {', '.join(without)} are missing")
    text = io.StringIO()
    names = [name for name in rows[0] if name not in without]
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _form_faults(path: Path, record: RobustnessRecord) -> Iterator[str]:
    """Faults that the record shows by itself."""
    if record.task not in TASKS or record.data.split not in SPLITS:
        raise UsageError(f"There is no task {record.task!r} or no split {record.data.split!r}.")
    if record.name != path.stem or not is_run_id(record.run_id):
        yield f"the file holds the record {record.name}; a file must have the name of its record."
    if not record.run_id.endswith(record.spec_hash[:10]):
        yield "the run id does not end in the hash of the spec."
    names = [entry.condition for entry in record.conditions]
    if names[:1] != [CLEAN] or len(set(names)) < len(names) or not set(names) <= set(CONDITIONS):
        raise UsageError(
            f"The conditions are {names}; they must be known, different, and start with {CLEAN}."
        )
    for entry in record.conditions:
        if entry.score.protocol != canonical(record.task) or entry.score.part != "all":
            raise UsageError(f"{entry.condition}: only scores under {canonical(record.task)} are allowed.")
        yield from (f"{entry.condition}: {fault}" for fault in form_faults(record.task, entry.score))


def _value_faults(record: RobustnessRecord, tables: Mapping[str, ConditionTable]) -> Iterator[str]:
    """Differences between the values of a record and those of its tables."""
    if set(tables) != {entry.condition for entry in record.conditions}:
        yield f"the per-clip file has the conditions {', '.join(tables)}, not those of the record."
        return
    clean = tables[CLEAN]
    for entry in record.conditions:
        table = tables[entry.condition]
        found = list(_condition_faults(entry, table, clean))
        if set(table.sums.clips) & set(record.left_out):
            found.append("a clip is scored and listed as left out.")
        yield from (f"{entry.condition}: {fault}" for fault in found)


def _condition_faults(entry: ConditionEntry, table: ConditionTable, clean: ConditionTable) -> Iterator[str]:
    yield from metric_faults(entry.score, table.sums)
    sums, several = table.sums.sums, len(table.sums.clips) > 1
    resampled = [table.sums.reduce(chunk) for (chunk,) in resampled_sums([sums])] if several else []
    yield from interval_faults(entry.score, table.sums, resampled)
    if table.sums.clips != clean.sums.clips:
        yield "its clips are not those of the clean predictions."
        return
    if CONDITIONS[entry.condition].pairs is None:
        if any(clip != source for clip, source in table.sources.items()):
            yield "a clip has the recording of another one."
        if (entry.pairs, entry.gain, entry.sensitivity) != (None, None, None):
            yield "it has neither pairs nor a gain nor a sensitivity."
        return
    if any(clip == source for clip, source in table.sources.items()):
        yield "a clip has its own recording."
    if entry.pairs != fingerprint_pairs(table.sources):
        yield "pairs is not the fingerprint of the per-clip file."
    if not ((table.overlaps >= 0) & (table.overlaps <= 1)).all():
        yield "overlap must be from 0 to 1."
    elif not equal(entry.sensitivity, float(1 - table.overlaps.mean())):
        yield f"sensitivity is {entry.sensitivity}, but the per-clip file gives {1 - table.overlaps.mean()}."
    yield from _gain_faults(entry, table, clean)


def _gain_faults(entry: ConditionEntry, table: ConditionTable, clean: ConditionTable) -> Iterator[str]:
    if set(entry.gain or ()) != set(entry.score.main):
        yield "gain must have the main metrics."
        return
    for metric, stated in (entry.gain or {}).items():
        found = paired_difference([clean.sums], [table.sums], metric)
        value, interval = (None, None) if found is None else (found.value, found.interval)
        if not equal(stated.value, value):
            yield f"the gain of {metric} is {stated.value}, but the per-clip file gives {value}."
        elif (stated.interval is None) != (interval is None) or not np.allclose(
            stated.interval or (), interval or (), rtol=0, atol=TOLERANCE
        ):
            yield f"the interval of the gain of {metric} is not that of the per-clip file."
