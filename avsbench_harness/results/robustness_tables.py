"""The tables of robustness records, read as untrusted data."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avsbench_harness.results.clip_table import (
    EPSILON,
    MAX_BYTES,
    ClipSums,
    parse_object_table,
    parse_semantic_tables,
)
from avsbench_harness.results.record import classes_file, clips_file
from avsbench_harness.results.robustness import RobustnessRecord
from avsbench_harness.robustness.clip_values import ClassAreas, ClipValues
from avsbench_harness.robustness.conditions import CLEAN
from avsbench_harness.scoring.scores import Floats
from avsbench_harness.tasks import CLASSES, Task, get_task

#: The columns of the per-class table from format 2 on.
CLASS_COLUMNS = ("wrong", "truth")


@dataclass(frozen=True)
class ConditionTable:
    """The rows of one condition in the per-clip table.

    Attributes:
        sums: per-clip sums of the canonical protocol.
        sources: per clip id the clip whose recording was used or added.
        overlaps: (N,) mean IoU with the clean prediction; NaN for ``clean``.
        values: the values of the metrics; ``None`` in format 1.
    """

    sums: ClipSums
    sources: Mapping[str, str]
    overlaps: Floats
    values: ClipValues | None


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
        areas = area_columns(task) if record.format > 1 else []
        table = _csv(rows, without=("condition", "source", "overlap", *areas))
        of_classes = classes.get(name, [])
        if task.semantic:
            extra = CLASS_COLUMNS if record.format > 1 else ()
            sums = parse_semantic_tables(table, _csv(of_classes, without=("condition", *extra)), task)
        else:
            sums = parse_object_table(table, task)
        sources = {row["clip"]: row["source"] for row in rows}
        overlaps = _column(rows, "overlap")
        values = None
        if record.format > 1:
            frames = sums.columns["frames"]
            shares = _areas(rows, areas, frames)
            own = _class_areas(of_classes, sums.clips, frames) if task.semantic else None
            values = ClipValues(shares, np.ones(len(rows)) if name == CLEAN else overlaps, own)
        found[name] = ConditionTable(sums, sources, overlaps, values)
    return found


def area_columns(task: Task) -> list[str]:
    """The columns of the per-clip table with the predicted share of each frame."""
    return [f"area_{frame}" for frame in range(1, task.frames + 1)]


def _column(rows: Sequence[Mapping[str, str]], name: str) -> Floats:
    """A column of numbers, NaN where it is empty."""
    return np.array([float(row[name] or "nan") for row in rows], np.float64)


def _areas(rows: Sequence[Mapping[str, str]], names: Sequence[str], frames: Floats) -> Floats:
    """The predicted shares (N,T), checked: those of the frames of a clip and no others."""
    areas = np.stack([_column(rows, name) for name in names], axis=1)
    inside = np.arange(len(names)) < frames[:, None]
    if (np.isfinite(areas) != inside).any() or not ((areas[inside] >= 0) & (areas[inside] <= 1)).all():
        raise ValueError("area_1, ... must be from 0 to 1 in the frames of a clip, and empty behind its end")
    return areas


def _class_areas(rows: Sequence[Mapping[str, str]], clips: Sequence[str], frames: Floats) -> ClassAreas:
    """The areas per clip and class, checked; the names of clips and classes have been checked before."""
    places = {clip: row for row, clip in enumerate(clips)}
    areas = np.zeros((2, len(clips), len(CLASSES)))
    for row in rows:
        place = places[row["clip"]], int(float(row["class"]))
        areas[(slice(None), *place)] = [float(row[name]) for name in CLASS_COLUMNS]
    wrong, truth = areas
    limit = frames[:, None] + EPSILON
    if not ((areas >= -EPSILON).all() and (wrong + truth <= limit).all()):
        raise ValueError("wrong and truth of a class must be from 0 to the number of frames")
    if not (abs(truth.sum(axis=1) - frames) <= 1e-6).all():
        raise ValueError("truth of all classes must add up to the number of frames")
    return ClassAreas(wrong, truth, frames)


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
