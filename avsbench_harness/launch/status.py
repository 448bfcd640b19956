"""The status of a grid's runs, from their files alone: records, claims, heartbeats and submitted jobs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from avsbench_harness.engine.heartbeat import Heartbeat, is_worked_on, read_heartbeat
from avsbench_harness.engine.run import Run
from avsbench_harness.errors import AvsbError, one_line
from avsbench_harness.launch.slurm_queue import queued_runs
from avsbench_harness.launch.sweep import Cell, State, distinct, record_of


@dataclass(frozen=True)
class Outcome:
    """The status of one run of a sweep.

    Attributes:
        name: the run's id.
        state: see ``State``.
        reason: of a failure, one line.
        log: file with the run's output.
        seconds: since this sweep started it.
        progress: last heartbeat of a running run, ``None`` if there is none.
    """

    name: str
    state: State
    reason: str = ""
    log: Path | None = None
    seconds: float = 0.0
    progress: Heartbeat | None = None


def invalid_cells(planned: Sequence[Cell]) -> list[Outcome]:
    """Failed outcomes of the cells without a run."""
    return [Outcome(cell.name, "failed", cell.problem) for cell in planned if cell.run is None]


def is_done(run: Run) -> bool:
    """Whether a run is done; with a damaged record it is not, and `avsb run` reports that."""
    try:
        record = record_of(run)
    except AvsbError:
        return False
    return record is not None and record.status == "done"


def state_of(run: Run) -> State:
    """The state of a run."""
    return run_status(run, queued_runs([run])).state


def run_status(run: Run, queued: Collection[str]) -> Outcome:
    """The status of a run; ``queued`` holds the ids of runs whose job is pending or running."""
    try:
        record = record_of(run)
    except AvsbError as error:
        return Outcome(run.id, "failed", one_line(error))
    if record is not None and record.status == "done":
        return Outcome(run.id, "done")
    if not run.folder.is_dir():
        return Outcome(run.id, "pending" if record is None else "failed", _reason(record))
    beat = read_heartbeat(run.folder)
    if is_worked_on(run.folder):
        return Outcome(run.id, "running", progress=beat if beat is not None and beat.total else None)
    if run.id in queued:
        return Outcome(run.id, "queued")
    reason = _reason(record) or (beat.reason if beat is not None else "")
    return Outcome(run.id, "failed" if reason or record is not None else "pending", reason)


def grid_status(planned: Sequence[Cell]) -> list[Outcome]:
    """The status of every run of a grid."""
    runs = [cell.run for cell in distinct(planned) if cell.run is not None]
    queued = queued_runs(runs)
    return invalid_cells(planned) + [run_status(run, queued) for run in runs]


def _reason(record: object) -> str:
    return getattr(record, "reason", None) or ""
