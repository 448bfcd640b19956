"""Checks of a record's scores: every claim is recomputed from the per-clip tables, or bounded."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from avsbench_harness.results.clip_table import EPSILON, ClipSums
from avsbench_harness.results.record import Record, ScoreEntry
from avsbench_harness.scoring.api import canonical, get_protocol, protocols, score_object, score_semantic
from avsbench_harness.scoring.bootstrap import bca_interval
from avsbench_harness.scoring.scores import Floats
from avsbench_harness.submission.codes import THRESHOLDS
from avsbench_harness.tasks import CLASSES, get_task

#: Largest difference between a recorded value and the value computed from the per-clip file.
TOLERANCE = 1e-9

#: Ranges of the metrics that are not in [0, 1].
RANGES = {"classes_seen": (0.0, float(len(CLASSES))), "J_decay": (-1.0, 1.0), "F_decay": (-1.0, 1.0)}


@dataclass(frozen=True)
class SolutionFacts:
    """The facts of a solution that records are compared with.

    Attributes:
        private: ids of the clips whose scores a host withholds.
    """

    task: str
    dataset: str
    synthetic: bool
    split: str
    clips: frozenset[str]
    private: frozenset[str]


@functools.cache
def metric_names(task: str, protocol: str) -> frozenset[str]:
    """The metrics of a protocol, from the scores of one blank clip."""
    blank = np.zeros((1, 2, 32, 32), np.uint8)
    if get_task(task).semantic:
        return frozenset(score_semantic(blank, blank, protocol=protocol).metrics)
    return frozenset(score_object(blank, blank, protocol).metrics)


def entry_faults(record: Record) -> Iterator[str]:
    """Faults in the form of a finished run's scores: protocols, parts, names, ranges and intervals."""
    keys = [(entry.protocol, entry.part, entry.batch) for entry in record.scores]
    if len(set(keys)) < len(keys):
        yield "scores has an entry twice."
    if record.score(canonical(record.task)) is None:
        yield f"a finished run must have scores under {canonical(record.task)}."
    for entry in record.scores:
        yield from (f"{entry.protocol} ({entry.part}): {fault}" for fault in form_faults(record.task, entry))


def form_faults(task: str, entry: ScoreEntry) -> Iterator[str]:
    """Faults in the form of the scores under one protocol: names, ranges and intervals."""
    if entry.protocol not in protocols(task):
        yield f"{task} has no such protocol."
        return
    protocol = get_protocol(task, entry.protocol)
    if protocol.needs_scores:
        yield f"the protocol {protocol.needs_scores}, so no submission has such scores."
        return
    if entry.part not in ("all", "public", "private"):
        yield "part must be all, public or private."
    if (entry.batch is None) != (protocol.batch is None) or (entry.batch or 1) < 1 or entry.clips < 1:
        yield "batch or clips is not possible."
    if set(entry.main) != set(protocol.main) or len(entry.main) != len(protocol.main):
        yield f"main is {entry.main!r}, but {list(protocol.main)!r} in the protocol."
    if not set(protocol.main) <= set(entry.metrics) <= metric_names(task, entry.protocol):
        yield "metrics are missing, or not those of the protocol."
    if not set(entry.intervals) <= set(protocol.main):
        yield "intervals has metrics that are not in main."
    for name, value in entry.metrics.items():
        if value is not None and not _in_range(name, value):
            yield f"{name} is {value}, outside its range."
        interval = entry.intervals.get(name)
        if interval is not None and not (
            all(_in_range(name, end) for end in interval) and interval[0] <= interval[1]
        ):
            yield f"the interval of {name} is {list(interval)}, which is not possible."


def _in_range(name: str, value: float) -> bool:
    low, high = RANGES.get(name, (0.0, 1.0))
    return math.isfinite(value) and low - EPSILON <= value <= high + EPSILON


def metric_faults(entry: ScoreEntry, table: ClipSums) -> Iterator[str]:
    """Differences between the canonical metrics of all clips and those of the per-clip tables."""
    if len(table.clips) != entry.clips:
        yield f"{entry.clips} clips were scored, but the per-clip file has {len(table.clips)}."
        return
    for name, value in entry.metrics.items():
        if name in table.metrics:
            if not equal(value, table.metrics[name]):
                yield f"{name} is {value}, but the per-clip file gives {table.metrics[name]}."
        elif name == "F_split":  # the maximum of a mean is at most the mean of the maxima
            bound = table.metrics["F"]
            if (value is None) != (bound is None) or (value or 0) > (bound or 0) + TOLERANCE:
                yield f"F_split is {value}, more than F of the per-clip file, {bound}."
        elif name == "threshold":
            known = value is not None and bool((abs(THRESHOLDS - value) <= TOLERANCE).any())
            if known != (table.metrics["F"] is not None):
                yield f"threshold is {value}, which is none of the protocol."
        else:
            yield f"{name} is claimed, but the per-clip file lacks its column."


def interval_faults(
    entry: ScoreEntry, table: ClipSums, resampled: Sequence[Mapping[str, Floats]]
) -> Iterator[str]:
    """Differences between the canonical intervals and those of the per-clip tables.

    Args:
        entry: canonical scores of all clips.
        table: the per-clip tables.
        resampled: metrics of each chunk of resamples.
    """
    total = table.sums.sum(axis=0)
    left_out = table.reduce(total - table.sums)
    for name in entry.main:
        stated, value = entry.intervals.get(name), table.metrics[name]
        values = np.concatenate([chunk[name] for chunk in resampled]) if resampled else np.zeros(0)
        if value is None or not np.isfinite(values).any():
            if stated is not None:
                yield f"{name} has an interval, but the per-clip file gives none."
            continue
        known: list[tuple[float, float]] = []
        for change in (
            0.0,
            -1e-12,
            1e-12,
        ):  # rounding may put resamples on either side
            known += filter(None, [bca_interval(value + change, values, left_out[name])])
            if stated is not None and all(
                min(ends) - TOLERANCE <= end <= max(ends) + TOLERANCE
                for end, ends in zip(stated, zip(*known, strict=True), strict=True)
            ):
                break
        else:
            interval = None if stated is None else list(stated)
            yield f"the interval of {name} is {interval}, but the per-clip file gives {list(known[0])}."


def part_faults(record: Record, table: ClipSums, solution: SolutionFacts | None) -> Iterator[str]:
    """Faults of the scores of the public and the private clips.

    They are recomputed if the solution is available; otherwise they must add up to those of all clips.
    """
    name = canonical(record.task)
    parts = {part: record.score(name, part) for part in ("public", "private")}
    for entry in record.scores:
        if entry.part != "all" and entry.protocol != name:
            yield f"{entry.protocol} ({entry.part}): only {name} has scores of parts."
    public, private = parts["public"], parts["private"]
    if public is None and private is None:
        return
    if public is None or private is None or public.clips + private.clips != len(table.clips):
        yield "the public and the private clips are not all clips."
        return
    if solution is not None:
        hidden = np.array([clip in solution.private for clip in table.clips])
        for entry, rows in ((public, ~hidden), (private, hidden)):
            values = table.reduce(table.sums[rows].sum(axis=0))
            for metric in entry.main:
                if rows.sum() != entry.clips or not equal(entry.metrics[metric], float(values[metric])):
                    yield f"{metric} of the {entry.part} clips is not that of the per-clip file."
    elif not get_task(record.task).semantic:
        total = sum(entry.clips * (entry.metrics["J"] or 0) for entry in (public, private))
        if not equal(total / len(table.clips), table.metrics["J"]):
            yield "J of the public and the private clips contradicts the per-clip file."


def equal(one: float | None, two: float | None) -> bool:
    """Whether two values are equal within :data:`TOLERANCE`, or both undefined."""
    one, two = (None if value is None or math.isnan(value) else value for value in (one, two))
    return one is two or (one is not None and two is not None and abs(one - two) <= TOLERANCE)
