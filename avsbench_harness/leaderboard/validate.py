"""Are the records and measurements in a folder what they say they are?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from avsbench_harness.engine.run import spec_hash
from avsbench_harness.errors import AvsbError
from avsbench_harness.leaderboard.table import COLUMNS
from avsbench_harness.results.measurement import measurement_files, read_measurement
from avsbench_harness.results.paired import read_clip_sums
from avsbench_harness.results.record import Record, read_record

#: How far a metric may lie from the one that the per-clip table adds up to.
TOLERANCE = 1e-9


def faults(folder: Path) -> tuple[int, list[str]]:
    """Check every record in a folder.

    Returns:
        how many records there are, and a sentence for each thing that is wrong.
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
    """Check every measurement beside the records of a folder.

    Returns:
        how many there are, and a sentence for each thing that is wrong.
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
            found.append(f"{path}: the measurement is {name}, not the one that its file is named after.")
    return len(paths), found


def _faults(path: Path, record: Record) -> Iterator[str]:
    if record.run_id != path.stem:
        yield f"the record is of run {record.run_id}, not of the run that its file is named after."
    yield from _strays_from_spec(record)
    if record.status == "failed":
        if record.scores or not record.reason:
            yield "a failed run has scores, or no reason."
        return
    if not record.scores:
        yield "a run that is done has no scores."
    for entry in record.scores:
        if entry.protocol not in COLUMNS or entry.part != "all":
            continue
        sums = read_clip_sums(path, entry.protocol)
        if len(sums.clips) != entry.clips:
            yield f"{entry.clips} clips were scored, and the table has {len(sums.clips)}."
            continue
        values = sums.reduce(sums.sums.sum(axis=0))
        for metric in entry.main:
            stated = entry.metrics.get(metric)
            if stated is not None and abs(float(values[metric]) - stated) > TOLERANCE:
                yield f"{metric} is {stated}, and the table of clips gives {float(values[metric])}."


def _strays_from_spec(record: Record) -> Iterator[str]:
    """What a record says of its run otherwise than the spec that decided the run."""
    spec = record.spec
    if spec is None:
        return
    if record.spec_hash != spec_hash(spec):
        yield "the hash of the spec is not that of the spec."
    elif not record.run_id.endswith(record.spec_hash[:10]):
        yield "the run's id does not end in the hash of the spec."
    said = {
        name: getattr(record, name) for name in ("method", "variant", "backbone", "task", "preset", "seed")
    }
    data = {f"data.{name}": getattr(record.data, name) for name in ("name", "synthetic", "fingerprint")}
    written = {**spec, **{f"data.{name}": value for name, value in (spec.get("data") or {}).items()}}
    for name, value in {**said, **data}.items():
        if value != written.get(name):
            yield f"{name} is {value!r}, and the spec says {written.get(name)!r}."
