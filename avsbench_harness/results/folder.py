"""The checked content of a results folder: valid records, refused files with the reason, and measurements.

What was computed for a record is cached by the content of its files, so that only new or changed records are
checked again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avsbench_harness import __version__
from avsbench_harness.engine.solutions import find_solution
from avsbench_harness.errors import AvsbError, UsageError, one_line
from avsbench_harness.files import parse_json
from avsbench_harness.results.check_cache import CheckCache, open_cache
from avsbench_harness.results.clip_table import (
    MAX_BYTES,
    ClipSums,
    parse_object_table,
    parse_semantic_tables,
)
from avsbench_harness.results.measurement import Measurement
from avsbench_harness.results.paired_bootstrap import PairedDifference
from avsbench_harness.results.protocol_bounds import bound_faults
from avsbench_harness.results.record import Record, ScoreEntry, classes_file, clips_file, parse_record
from avsbench_harness.results.robustness import RobustnessRecord, read_robustness, robustness_files
from avsbench_harness.results.robustness_faults import Gain, read_gain
from avsbench_harness.results.score_faults import SolutionFacts, interval_faults, metric_faults, part_faults
from avsbench_harness.results.validate import read_checked_measurements, record_faults
from avsbench_harness.scoring.api import canonical
from avsbench_harness.scoring.bootstrap import resampled_sums
from avsbench_harness.scoring.scores import Floats
from avsbench_harness.submission import read_solution
from avsbench_harness.tasks import get_task

#: Changes whenever a check or a cached value changes.
VERSION = 2

#: Records that are held in memory with their tables at a time.
_BATCH = 64


@dataclass(frozen=True)
class Bootstrap:
    """The first main metric of a record's canonical scores on the resamples of its clips.

    Attributes:
        clips: hash of the ids of the clips; rows are compared on the same clips only.
        value: value over all clips.
        resampled: (2000,) value on each resample, empty with fewer than two clips.
    """

    clips: str
    value: float
    resampled: Floats


@dataclass(frozen=True)
class Results:
    """The content of a results folder.

    Attributes:
        records: valid records by run id.
        refused: faulty or unreadable files, each with the reasons.
        bootstraps: by run id; failed runs have none.
        keys: hash of the files of each record by run id.
        gains: audio gains by run id, of the records with a robustness record on the same ground truth.
        robustness: the robustness records of valid records on the same ground truth.
        refused_robustness: faulty robustness records, each with the reason.
    """

    folder: Path
    records: tuple[Record, ...] = ()
    refused: tuple[tuple[Path, tuple[str, ...]], ...] = ()
    bootstraps: Mapping[str, Bootstrap] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    measurements: tuple[Measurement, ...] = ()
    refused_measurements: tuple[tuple[Path, str], ...] = ()
    gains: Mapping[str, PairedDifference] = field(default_factory=dict)
    refused_robustness: tuple[tuple[Path, str], ...] = ()
    robustness: tuple[RobustnessRecord, ...] = ()

    @property
    def refusals(self) -> list[tuple[str, str]]:
        """(file name, first reason) of every refused record, measurement and robustness record."""
        found = [(path.name, faults[0]) for path, faults in self.refused]
        in_folders = (*self.refused_measurements, *self.refused_robustness)
        return found + [(f"{path.parent.name}/{path.name}", why) for path, why in in_folders]


@dataclass
class _Checked:
    """A file under check.

    Attributes:
        key: cache key, by the content of the files.
    """

    path: Path
    key: str = ""
    record: Record | None = None
    faults: list[str] = field(default_factory=list)
    bootstrap: Bootstrap | None = None


def read_results(folder: Path) -> Results:
    """Read and check a results folder; faulty files never prevent the rest from being read."""
    checked: list[_Checked] = []
    solutions: dict[str, SolutionFacts | None] = {}
    paths = sorted(folder.glob("*.json"))
    with open_cache() as cache, ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), _BATCH):
            checked += _check(paths[start : start + _BATCH], cache, pool, solutions)
        found, refused_robustness = _read_gains(folder, cache, pool)
    measurements, refused = read_checked_measurements(folder)
    valid = {one.record.run_id: one for one in checked if one.record is not None and not one.faults}
    gains, robustness = {}, []
    for path, gain in found.items():
        record = valid[gain.run_id].record if gain.run_id in valid else None
        if record is None:
            continue
        if gain.solution == record.data.solution:
            robustness.append(read_robustness(path))
            if gain.difference is not None:
                gains[gain.run_id] = gain.difference
        elif gain.difference is not None:  # of the test split
            refused_robustness.append((path, "its ground truth is not that of the run's record."))
    return Results(
        folder=folder,
        records=tuple(one.record for one in valid.values() if one.record is not None),
        refused=tuple((one.path, tuple(map(one_line, one.faults))) for one in checked if one.faults),
        bootstraps={name: one.bootstrap for name, one in valid.items() if one.bootstrap is not None},
        keys={name: one.key for name, one in valid.items()},
        measurements=tuple(measurements),
        refused_measurements=tuple(refused),
        gains=gains,
        refused_robustness=tuple(refused_robustness),
        robustness=tuple(robustness),
    )


def _read_gains(
    folder: Path, cache: CheckCache, pool: Executor
) -> tuple[dict[Path, Gain], list[tuple[Path, str]]]:
    """Return the audio gain of every robustness record, and the faulty ones with the reasons."""
    files = robustness_files(folder)
    keys = dict(zip(files, pool.map(_robustness_key, files), strict=True))
    known = {
        key: json.loads(value) for key, value in cache.get([key for key in keys.values() if key]).items()
    }
    pending = [path for path in files if keys[path] not in known]
    checked = dict(zip(pending, pool.map(_check_robustness, pending), strict=True))
    cache.put({keys[path]: json.dumps(value).encode() for path, value in checked.items() if keys[path]})
    gains, refused = {}, []
    for path in files:
        facts, fault = checked[path] if path in checked else known[keys[path]]
        if fault:
            refused.append((path, fault))
        else:
            run_id, solution, value, interval = facts
            difference = None if value is None else PairedDifference(value, interval and tuple(interval))
            gains[path] = Gain(run_id, solution, difference)
    return gains, refused


def _robustness_key(path: Path) -> str:
    """Return the cache key of a robustness record, empty if it cannot be read."""
    digest = hashlib.sha256(f"{VERSION} {__version__} {path.name}".encode())
    try:
        for file in (path, clips_file(path), classes_file(path)):
            digest.update(hashlib.sha256(_read(file) if file.is_file() else b"").digest())
    except OSError:
        return ""
    return digest.hexdigest()


def _check_robustness(path: Path) -> tuple[Sequence[Any], str]:
    """Return run id, ground truth, gain and its interval of a robustness record, and its first fault."""
    try:
        gain = read_gain(path)
    except UsageError as error:
        return (), one_line(error)
    value, interval = None, None
    if gain.difference is not None:
        value, interval = gain.difference.value, gain.difference.interval
    return (gain.run_id, gain.solution, value, interval), ""


def _check(
    paths: Sequence[Path], cache: CheckCache, pool: Executor, solutions: dict[str, SolutionFacts | None]
) -> list[_Checked]:
    """Read some records, and check those that are not in the cache."""
    loaded = [_load(path, solutions) for path in paths]
    known = cache.get([one.key for one, _ in loaded if one.key])
    pending = []
    for one, tables in loaded:
        if one.record is not None and one.key in known:
            _restore(one, known[one.key])
        elif one.record is not None:
            pending.append((one, one.record, tables, _solution(one.record, solutions)))
    done = pool.map(lambda values: _check_record(*values), pending)
    cache.put({one.key: _store(one) for (one, *_), _ in zip(pending, done, strict=True)})
    return [one for one, _ in loaded]


def _load(path: Path, solutions: dict[str, SolutionFacts | None]) -> tuple[_Checked, dict[str, bytes]]:
    """Read a record, and the content of its tables."""
    one = _Checked(path)
    tables: dict[str, bytes] = {}
    try:
        content = _read(path)
        for name, file in (("clips", clips_file(path)), ("classes", classes_file(path))):
            if file.is_file():
                tables[name] = _read(file)
        record = parse_record(parse_json(content, path.name), path.name)
        solution = _solution(record, solutions)
        digest = hashlib.sha256(f"{VERSION} {__version__} {path.name} {solution}".encode())
        for part in (content, *(tables.get(name, b"") for name in ("clips", "classes"))):
            digest.update(hashlib.sha256(part).digest())
        one.key, one.record = digest.hexdigest(), record
    except (AvsbError, OSError, RecursionError, ValueError) as error:
        one.faults.append(f"unreadable: {one_line(error)}")
    return one, tables


def _read(path: Path) -> bytes:
    if not path.is_file():  # reading a named pipe would block
        raise OSError("it is not a regular file")
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _solution(record: Record, known: dict[str, SolutionFacts | None]) -> SolutionFacts | None:
    """The facts of the solution that a record names, if the cache has it and a check needs it."""
    external = record.spec is None or any(entry.part != "all" for entry in record.scores)
    if not external or not record.data.solution:
        return None
    fingerprint = record.data.solution
    if fingerprint not in known:
        path = find_solution(fingerprint)
        known[fingerprint] = None
        if path is not None:
            with read_solution(path) as solution:
                header = solution.header
                known[fingerprint] = SolutionFacts(
                    task=header.task,
                    dataset=header.dataset,
                    synthetic=header.synthetic,
                    split=header.split,
                    clips=frozenset(clip.id for clip in header.clips),
                    private=frozenset(clip.id for clip in header.clips if clip.private),
                )
    return known[fingerprint]


def _check_record(
    one: _Checked, record: Record, tables: Mapping[str, bytes], solution: SolutionFacts | None
) -> None:
    """Check a record against its spec, its solution and its per-clip tables."""
    one.faults += record_faults(one.path, record, solution)
    entry = None if one.faults or record.status == "failed" else record.score(canonical(record.task))
    if entry is None:
        return
    task = get_task(record.task)
    try:
        if task.semantic:
            table = parse_semantic_tables(tables.get("clips", b""), tables.get("classes", b""), task)
        else:
            table = parse_object_table(tables.get("clips", b""), task)
    except ValueError as error:
        one.faults.append(f"its per-clip file is missing or damaged ({one_line(error, 200)}).")
        return
    if solution is not None and solution.clips != frozenset(table.clips):
        one.faults.append("the clips of the per-clip file are not those of the solution.")
    one.faults += metric_faults(entry, table)
    for other in record.scores:
        if other is not entry and other.part == "all":
            faults = bound_faults(other, table)
            one.faults += (f"{other.protocol}: {fault}" for fault in faults)
    one.faults += part_faults(record, table, solution)
    if not one.faults:
        _resample(one, entry, table)


def _resample(one: _Checked, entry: ScoreEntry, table: ClipSums) -> None:
    """Check the intervals of a record, and keep its first metric on the resamples of its clips."""
    several = len(table.clips) > 1
    chunks = [table.reduce(sums) for (sums,) in resampled_sums([table.sums])] if several else []
    one.faults += interval_faults(entry, table, chunks)
    metric = entry.main[0]
    one.bootstrap = Bootstrap(
        clips=hashlib.sha256("\n".join(table.clips).encode()).hexdigest(),
        value=float(table.reduce(table.sums.sum(axis=0))[metric]),
        resampled=np.concatenate([chunk[metric] for chunk in chunks] or [np.zeros(0)]),
    )


def _store(one: _Checked) -> bytes:
    """The cached value of a checked record."""
    bootstrap = one.bootstrap
    facts = None if bootstrap is None else [bootstrap.clips, bootstrap.value]
    head = json.dumps({"faults": list(map(one_line, one.faults)), "bootstrap": facts}).encode()
    return head + b"\n" + (b"" if bootstrap is None else bootstrap.resampled.tobytes())


def _restore(one: _Checked, value: bytes) -> None:
    """Set the result of an earlier check."""
    head, _, body = value.partition(b"\n")
    facts = json.loads(head)
    one.faults += facts["faults"]
    if facts["bootstrap"] is not None:
        clips, number = facts["bootstrap"]
        one.bootstrap = Bootstrap(clips, number, np.frombuffer(body, np.float64))


def folder_faults(results: Results) -> Iterator[str]:
    """Every fault of the records and measurements in a folder, one sentence each."""
    for path, faults in results.refused:
        yield from (f"{path}: {fault}" for fault in faults)
    yield from (f"{path}: {reason}" for path, reason in results.refused_measurements)
