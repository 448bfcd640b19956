"""How the runs of a grid stand, from their files alone: records, claims, heartbeats and submitted jobs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from avsbench_harness.engine.heartbeat import Heartbeat, is_worked_on, read_heartbeat
from avsbench_harness.engine.run import Run
from avsbench_harness.launch.slurm_queue import queued_runs
from avsbench_harness.launch.sweep import Cell, State, distinct, record_of


@dataclass(frozen=True)
class Outcome:
    """How one run of a sweep ended, or how it stands.

    Attributes:
        name: the run's id.
        state: see ``State``.
        reason: why it failed, one line.
        log: what the run printed.
        seconds: since it was started by this sweep.
        progress: how far the training of a running one is, ``None`` where nothing is known.
    """

    name: str
    state: State
    reason: str = ""
    log: Path | None = None
    seconds: float = 0.0
    progress: Heartbeat | None = None


def impossible(planned: Sequence[Cell]) -> list[Outcome]:
    """The cells that no run can be made of."""
    return [Outcome(cell.name, "failed", cell.problem) for cell in planned if cell.run is None]


def is_done(run: Run) -> bool:
    """Whether a run has been carried out."""
    record = record_of(run)
    return record is not None and record.status == "done"


def state_of(run: Run) -> State:
    """How a run stands."""
    return look_at(run, queued_runs([run])).state


def look_at(run: Run, queued: Collection[str]) -> Outcome:
    """How a run stands; ``queued`` are the ids of runs whose job is alive."""
    record = record_of(run)
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


def standing(planned: Sequence[Cell]) -> list[Outcome]:
    """How every run of a grid stands."""
    runs = [cell.run for cell in distinct(planned) if cell.run is not None]
    queued = queued_runs(runs)
    return impossible(planned) + [look_at(run, queued) for run in runs]


def _reason(record: object) -> str:
    return getattr(record, "reason", None) or ""
