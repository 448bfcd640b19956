"""Validation of the records and measurements in a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from avsbench_harness.engine.run import RunSpec
from avsbench_harness.engine.spec_hash import spec_hash
from avsbench_harness.errors import AvsbError, one_line
from avsbench_harness.results.measurement import Measurement, measurement_files, read_measurement
from avsbench_harness.results.record import Record, is_run_id
from avsbench_harness.results.score_faults import SolutionFacts, entry_faults
from avsbench_harness.tasks import SPLITS, TASKS

#: Fields of a record that describe a run, and that only a spec supports.
RUN_FIELDS = ("variant", "backbone", "preset", "seed", "training", "cost")

#: Limit of the numbers that describe costs and trainings.
LARGEST = 1e15

_DATE = re.compile(r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]Z")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def read_checked_measurements(folder: Path) -> tuple[list[Measurement], list[tuple[Path, str]]]:
    """Read the valid measurements in ``bench/`` of a folder of records.

    Returns:
        the measurements; then each refused file with the reason.
    """
    found: list[Measurement] = []
    refused: list[tuple[Path, str]] = []
    for path in measurement_files(folder):
        try:
            measurement = read_measurement(path)
        except (AvsbError, OSError) as error:
            refused.append((path, one_line(error)))
            continue
        if measurement.name == path.stem:
            found.append(measurement)
        else:
            reason = (
                f"the file holds measurement {measurement.name}; its name must be that of the measurement."
            )
            refused.append((path, one_line(reason)))
    return found, refused


def record_faults(path: Path, record: Record, solution: SolutionFacts | None) -> Iterator[str]:
    """Faults of a record, apart from those that its per-clip tables show.

    Args:
        path: file of the record.
        record: the record.
        solution: the solution of its data, ``None`` if not available.
    """
    if record.run_id != path.stem or not is_run_id(record.run_id):
        yield f"the file holds the record of run {record.run_id}; a file must have the id of its run."
    if record.task not in TASKS or record.data.split not in SPLITS:
        yield f"there is no task {record.task!r} or no split {record.data.split!r}."
        return
    for name, digest in (
        ("data.solution", record.data.solution),
        ("submission_sha256", record.submission_sha256),
    ):
        if record.status == "done" and not _SHA256.fullmatch(digest or ""):
            yield f"{name} is {digest!r}, which is not a SHA-256."
    yield from _fact_faults(record)
    if solution is not None:
        yield from _data_faults(record, solution)
    if record.spec is not None:
        yield from _spec_faults(record, record.spec)
    else:
        yield from _external_faults(record, solution)
    if record.status == "failed":
        if record.scores or not record.reason:
            yield "a failed run must have a reason and no scores."
    elif not record.scores:
        yield "a finished run must have scores."
    else:
        yield from entry_faults(record)


def _fact_faults(record: Record) -> Iterator[str]:
    """Impossible dates, costs and facts of a training."""
    if not _DATE.fullmatch(record.created):
        yield f"created is {record.created!r}, which is not a date such as 2026-01-31T12:00:00Z."
    facts: list[tuple[str, float]] = []
    if (cost := record.cost) is not None:
        facts += [("cost.parameters", cost.parameters), ("cost.gmacs", cost.gmacs)]
    if (training := record.training) is not None:
        facts += [
            ("training.selected_step", training.selected_step),
            ("training.steps", training.steps),
            ("training.seconds", training.seconds),
            ("training.clips_per_second", training.clips_per_second or 0),
            ("training.memory_gib", training.memory_gib or 0),
        ]
        if training.selected_step > training.steps:
            yield f"training.selected_step is {training.selected_step}, after the last step."
    for name, value in facts:
        if not 0 <= value < LARGEST:
            yield f"{name} is {value}, which is not possible."


def _data_faults(record: Record, solution: SolutionFacts) -> Iterator[str]:
    """Contradictions between a record and the solution that it names."""
    for name, stated, found in (
        ("task", record.task, solution.task),
        ("data.name", record.data.name, solution.dataset),
        ("data.synthetic", record.data.synthetic, solution.synthetic),
        ("data.split", record.data.split, solution.split),
    ):
        if stated != found:
            yield f"{name} is {stated!r}, but {found!r} in the solution."


def _external_faults(record: Record, solution: SolutionFacts | None) -> Iterator[str]:
    """Claims of a record without spec that nothing supports."""
    claimed = [name for name in RUN_FIELDS if getattr(record, name) is not None]
    if record.data.fingerprint is not None:
        claimed.append("data.fingerprint")
    if claimed or record.spec_hash is not None or record.status == "failed":
        yield f"the spec is missing, but {', '.join(claimed) or 'spec_hash or status'} describe a run."
    elif not record.data.synthetic and solution is None:
        yield (
            "data.synthetic is False, but there is no spec, and the solution of these data is not available "
            "to check it; `avsb score SUBMISSION --data ROOT` adds it to the cache."
        )


def _spec_faults(record: Record, spec: Mapping[str, Any]) -> Iterator[str]:
    """Contradictions between a record and the spec of its run."""
    try:
        RunSpec.parse(spec, "the spec")
    except AvsbError as error:
        yield str(error)
        return
    if record.spec_hash != spec_hash(spec):
        yield "spec_hash is not the hash of the spec."
    elif not record.run_id.removesuffix(f"-{record.data.split}").endswith(record.spec_hash[:10]):
        yield "the run id does not end in the hash of the spec."
    stated = {
        name: getattr(record, name) for name in ("method", "variant", "backbone", "task", "preset", "seed")
    }
    stated |= {f"data.{name}": getattr(record.data, name) for name in ("name", "synthetic", "fingerprint")}
    expected = {**spec, **{f"data.{name}": value for name, value in spec["data"].items()}}
    for name, value in stated.items():
        if value != expected.get(name):
            yield f"{name} is {value!r}, but {expected.get(name)!r} in the spec."
