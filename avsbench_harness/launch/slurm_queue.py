"""Which runs wait in a cluster's queue: the jobs that sweeps have submitted, as their files tell."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterable
from typing import Literal, TypeAlias

from avsbench_harness.engine.heartbeat import process_exists
from avsbench_harness.engine.run import Run
from avsbench_harness.errors import UsageError
from avsbench_harness.files import read_json, write_json
from avsbench_harness.schema import Schema

#: ``local`` runs jobs as processes of this machine, without a queue.
Cluster: TypeAlias = Literal["slurm", "local"]


class Submitted(Schema):
    """The job that a run was last submitted as, in its folder's ``job.json``.

    Attributes:
        cluster: where to.
        id: the job's number there, ``array_task`` for one of an array.
        host: where it was submitted from.
        log: what the job prints, submitit's messages included.
    """

    cluster: Cluster
    id: str
    host: str
    log: str


def note_job(run: Run, cluster: Cluster, job: str, log: str) -> None:
    """Write down what a run was submitted as."""
    submitted = Submitted(cluster=cluster, id=job, host=socket.gethostname(), log=log)
    write_json(run.folder / "job.json", submitted.model_dump(mode="json"))


def job_of(run: Run) -> Submitted | None:
    """The job that a run was last submitted as."""
    path = run.folder / "job.json"
    try:
        return Submitted.parse(read_json(path), str(path))
    except (OSError, UsageError):
        return None


def queued_runs(runs: Iterable[Run]) -> set[str]:
    """The ids of the runs whose job waits or works; a queue that does not answer has forgotten nothing."""
    jobs = {run.id: job for run in runs if (job := job_of(run)) is not None}
    known = _slurm_jobs() if any(job.cluster == "slurm" for job in jobs.values()) else None
    return {name for name, job in jobs.items() if _exists(job, known)}


def _exists(job: Submitted, known: set[str] | None) -> bool:
    if job.cluster == "slurm":
        return known is None or job.id in known
    return job.host == socket.gethostname() and process_exists(int(job.id))


def _slurm_jobs() -> set[str] | None:
    """The numbers of all jobs that wait or run; ``None`` where nobody answers."""
    if shutil.which("squeue") is None:
        return None
    try:
        answer = subprocess.run(
            ["squeue", "--noheader", "--array", "--format=%i"], capture_output=True, text=True, timeout=60
        )
    except subprocess.TimeoutExpired:
        return None
    return set(answer.stdout.split()) if answer.returncode == 0 else None
