"""SLURM jobs of runs: the job that each run was last submitted as, and which of them are in the queue."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable

from avsbench_harness.engine.run import Run
from avsbench_harness.errors import UsageError
from avsbench_harness.files import read_json, write_json
from avsbench_harness.schema import Schema


class SubmittedJob(Schema):
    """The job that a run was last submitted as, in its folder's ``job.json``.

    Attributes:
        id: SLURM's job id, ``array_task`` for one of an array.
        log: file with the job's output, submitit's messages included.
    """

    id: str
    log: str


def write_job(run: Run, job: str, log: str) -> None:
    """Write the job that a run was submitted as."""
    write_json(run.folder / "job.json", SubmittedJob(id=job, log=log).model_dump(mode="json"))


def read_job(run: Run) -> SubmittedJob | None:
    """The job that a run was last submitted as, if any."""
    path = run.folder / "job.json"
    try:
        return SubmittedJob.parse(read_json(path), str(path))
    except (OSError, UsageError):
        return None


def queued_runs(runs: Iterable[Run]) -> set[str]:
    """The ids of the runs whose job is pending or running; all jobs count where SLURM does not answer."""
    jobs = {run.id: job for run in runs if (job := read_job(run)) is not None}
    known = _jobs_in_queue() if jobs else set()
    return {name for name, job in jobs.items() if known is None or job.id in known}


def _jobs_in_queue() -> set[str] | None:
    """The ids of all pending and running jobs; ``None`` where SLURM does not answer."""
    if shutil.which("squeue") is None:
        return None
    try:
        answer = subprocess.run(
            ["squeue", "--noheader", "--array", "--format=%i"], capture_output=True, text=True, timeout=60
        )
    except subprocess.TimeoutExpired:
        return None
    return set(answer.stdout.split()) if answer.returncode == 0 else None
