"""Validation of the records and measurements in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from avsbench_harness.engine.run import spec_hash
from avsbench_harness.errors import AvsbError
from avsbench_harness.results.measurement import measurement_files, read_measurement
from avsbench_harness.results.paired_bootstrap import read_clip_sums
from avsbench_harness.results.record import Record, read_record
from avsbench_harness.scoring.api import CANONICAL_OBJECT, CANONICAL_SEMANTIC

#: Largest difference between a recorded metric and the metric computed from the per-clip file.
TOLERANCE = 1e-9


def record_faults(folder: Path) -> tuple[int, list[str]]:
    """Check every record in a folder.

    Returns:
        the number of records, and one sentence per fault.
    """
    found: list[str] = []
    paths = sorted(folder.glob("*.json"))
    for path in paths:
        try:
            record = read_record(path)
            found += [f"{path}: {fault}" for fault in _faults(path, record)]
        except AvsbError as error:
            found.append(str(error))
    return len(paths), found


def measurement_faults(folder: Path) -> tuple[int, list[str]]:
    """Check every measurement in ``bench/`` of a folder of records.

    Returns:
        the number of measurements, and one sentence per fault.
    """
    found: list[str] = []
    paths = measurement_files(folder)
    for path in paths:
        try:
            name = read_measurement(path).name
        except AvsbError as error:
            found.append(str(error))
            continue
        if name != path.stem:
            found.append(
                f"{path}: the file holds measurement {name}; a file must have the name of its measurement."
            )
    return len(paths), found


def _faults(path: Path, record: Record) -> Iterator[str]:
    if record.run_id != path.stem:
        yield f"the file holds the record of run {record.run_id}; a file must have the id of its run."
    yield from _spec_faults(record)
    if record.status == "failed":
        if record.scores or not record.reason:
            yield "a failed run must have a reason and no scores."
        return
    if not record.scores:
        yield "a finished run must have scores."
    for entry in record.scores:
        if entry.protocol not in (CANONICAL_OBJECT, CANONICAL_SEMANTIC) or entry.part != "all":
            continue
        sums = read_clip_sums(path, entry.protocol)
        if len(sums.clips) != entry.clips:
            yield f"{entry.clips} clips were scored, but the per-clip file has {len(sums.clips)}."
            continue
        values = sums.reduce(sums.sums.sum(axis=0))
        for metric in entry.main:
            stated = entry.metrics.get(metric)
            if stated is not None and abs(float(values[metric]) - stated) > TOLERANCE:
                yield f"{metric} is {stated}, but the per-clip file gives {float(values[metric])}."


def _spec_faults(record: Record) -> Iterator[str]:
    """Contradictions between a record and the spec of its run."""
    spec = record.spec
    if spec is None:
        return
    if record.spec_hash != spec_hash(spec):
        yield "spec_hash is not the hash of the spec."
    elif not record.run_id.endswith(record.spec_hash[:10]):
        yield "the run id does not end in the hash of the spec."
    stated = {
        name: getattr(record, name) for name in ("method", "variant", "backbone", "task", "preset", "seed")
    }
    stated |= {f"data.{name}": getattr(record.data, name) for name in ("name", "synthetic", "fingerprint")}
    expected = {**spec, **{f"data.{name}": value for name, value in (spec.get("data") or {}).items()}}
    for name, value in stated.items():
        if value != expected.get(name):
            yield f"{name} is {value!r}, but {expected.get(name)!r} in the spec."
