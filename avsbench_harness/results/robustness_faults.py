"""Checks of robustness records against their tables, and the audio gain of a checked record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avsbench_harness.errors import AvsbError, UsageError, one_line
from avsbench_harness.results.paired_bootstrap import PairedDifference, paired_difference
from avsbench_harness.results.record import is_run_id
from avsbench_harness.results.robustness import (
    ConditionEntry,
    EstimateEntry,
    RobustnessRecord,
    read_robustness,
)
from avsbench_harness.results.robustness_tables import ConditionTable, read_tables
from avsbench_harness.results.score_faults import (
    TOLERANCE,
    equal,
    form_faults,
    interval_faults,
    metric_faults,
)
from avsbench_harness.robustness.conditions import CLEAN, CONDITIONS, SWAPPED
from avsbench_harness.robustness.metrics import class_rates, condition_metrics, pia_curve, snr_area
from avsbench_harness.robustness.pairs import fingerprint_pairs
from avsbench_harness.scoring.api import canonical
from avsbench_harness.scoring.bootstrap import resampled_sums
from avsbench_harness.tasks import SPLITS, TASKS


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


def robustness_faults(path: Path) -> Iterator[str]:
    """Faults of a robustness record and its tables, one sentence each."""
    try:
        record = read_robustness(path)
        yield from _form_faults(path, record)
        yield from _value_faults(record, read_tables(path, record))
    except (AvsbError, OSError, ValueError) as error:
        yield f"unreadable, or its per-clip file is missing or damaged: {one_line(error, 300)}"


def _form_faults(path: Path, record: RobustnessRecord) -> Iterator[str]:
    """Faults that the record shows by itself."""
    if record.task not in TASKS or record.data.split not in SPLITS:
        raise UsageError(f"There is no task {record.task!r} or no split {record.data.split!r}.")
    if record.name != path.stem or not is_run_id(record.run_id):
        yield f"the file holds the record {record.name}; a file must have the name of its record."
    if not record.run_id.endswith(record.spec_hash[:10]):
        yield "the run id does not end in the hash of the spec."
    names = [entry.condition for entry in record.conditions]
    if record.format == 1 and (record.unavailable or not set(names) <= {CLEAN, SWAPPED}):
        yield f"format 1 has the conditions {CLEAN} and {SWAPPED} alone."
    if set(record.unavailable) & set(names) or not set(record.unavailable) <= set(CONDITIONS):
        yield "unavailable has conditions that are unknown or scored."
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
    yield from _snr_faults(record, tables)


def _condition_faults(entry: ConditionEntry, table: ConditionTable, clean: ConditionTable) -> Iterator[str]:
    yield from metric_faults(entry.score, table.sums)
    sums, several = table.sums.sums, len(table.sums.clips) > 1
    resampled = [table.sums.reduce(chunk) for (chunk,) in resampled_sums([sums])] if several else []
    yield from interval_faults(entry.score, table.sums, resampled)
    if table.sums.clips != clean.sums.clips:
        yield "its clips are not those of the clean predictions."
        return
    condition = CONDITIONS[entry.condition]
    if condition.pairs is None:
        if any(clip != source for clip, source in table.sources.items()):
            yield "a clip has the recording of another one."
        if entry.pairs is not None:
            yield "it has no pairs."
    else:
        if any(clip == source for clip, source in table.sources.items()):
            yield "a clip has its own recording."
        if entry.pairs != fingerprint_pairs(table.sources):
            yield "pairs is not the fingerprint of the per-clip file."
    yield from _metric_faults(entry, table)
    if entry.condition == CLEAN:
        if (entry.gain, entry.sensitivity) != (None, None):
            yield "it has neither a gain nor a sensitivity."
        return
    if not ((table.overlaps >= 0) & (table.overlaps <= 1)).all():
        yield "overlap must be from 0 to 1."
    elif not equal(entry.sensitivity, float(1 - table.overlaps.mean())):
        yield f"sensitivity is {entry.sensitivity}, but the per-clip file gives {1 - table.overlaps.mean()}."
    yield from _gain_faults(entry, table, clean)


def _metric_faults(entry: ConditionEntry, table: ConditionTable) -> Iterator[str]:
    """Differences in the metrics from format 2 on."""
    condition, values = CONDITIONS[entry.condition], table.values
    if values is None:
        if (entry.metrics, entry.pia, entry.class_fpr) != (None, None, None):
            yield "format 1 has no metrics, pia and class_fpr."
        return
    if (condition.kind is None) != (entry.version is None):
        yield "version must be given for changed recordings alone."
    found = condition_metrics(condition, values)
    stated = entry.metrics or {}
    if set(stated) != set(found):
        yield f"metrics has {', '.join(sorted(stated)) or 'none'}, not {', '.join(sorted(found))}."
        return
    for name, estimate in found.items():
        if not _agrees(stated[name], estimate.value, estimate.interval):
            yield f"{name} is {stated[name].value}, or its interval, not that of the per-clip file."
    curve = pia_curve(values).tolist() if condition.negative else None
    if (curve is None) != (entry.pia is None) or not np.allclose(
        entry.pia or (), curve or (), rtol=0, atol=TOLERANCE
    ):
        yield "pia is not the curve of the per-clip file."
    expected, recorded = class_rates(values) or {}, entry.class_fpr or {}
    if set(recorded) != set(expected) or not all(equal(recorded[name], expected[name]) for name in expected):
        yield "class_fpr is not that of the per-class file."


def _agrees(stated: EstimateEntry, value: float | None, interval: tuple[float, float] | None) -> bool:
    """Whether a recorded value and its interval are those that were computed."""
    if not equal(stated.value, value) or (stated.interval is None) != (interval is None):
        return False
    return np.allclose(stated.interval or (), interval or (), rtol=0, atol=TOLERANCE)


def _snr_faults(record: RobustnessRecord, tables: Mapping[str, ConditionTable]) -> Iterator[str]:
    """Differences in the curve over the mixtures."""
    snrs = {CONDITIONS[name].snr: table.sums for name, table in tables.items()}
    mixtures = {snr: (sums.sums, sums.reduce) for snr, sums in snrs.items() if snr is not None}
    stated = record.snr
    if (record.format > 1 and len(mixtures) > 1) != (stated is not None):
        yield "snr must be given with two mixtures or more."
    elif stated is not None:
        metric = record.conditions[0].score.main[0]
        values, area = snr_area(mixtures, metric)
        if (stated.metric, stated.snrs) != (metric, sorted(mixtures)) or len(stated.values) != len(values):
            yield "snr is not the curve of the mixtures."
        elif not all(map(equal, stated.values, values)) or not _agrees(
            stated.area, area.value, area.interval
        ):
            yield "snr has values that are not those of the per-clip file."


def _gain_faults(entry: ConditionEntry, table: ConditionTable, clean: ConditionTable) -> Iterator[str]:
    if set(entry.gain or ()) != set(entry.score.main):
        yield "gain must have the main metrics."
        return
    for metric, stated in (entry.gain or {}).items():
        found = paired_difference([clean.sums], [table.sums], metric)
        value, interval = (None, None) if found is None else (found.value, found.interval)
        if not equal(stated.value, value):
            yield f"the gain of {metric} is {stated.value}, but the per-clip file gives {value}."
        elif not _agrees(stated, value, interval):
            yield f"the interval of the gain of {metric} is not that of the per-clip file."
