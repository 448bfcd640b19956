"""A grid's runs as jobs of a cluster, through submitit: one job per run, which saves its state and requeues
itself when the cluster takes its machine.

Whoever submits only watches: the runs' files say how they stand, and the jobs go on without a watcher.
"""

from __future__ import annotations

import shutil
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from avsbench_harness.engine.heartbeat import CLAIM, INTERVAL, MISSED, beating, end_claim, take_claim
from avsbench_harness.engine.interrupt import NOTICES, stop_request
from avsbench_harness.engine.run import Run
from avsbench_harness.errors import AvsbError, Busy, Interrupted, UsageError, one_line
from avsbench_harness.launch.execute import execute
from avsbench_harness.launch.request import Request, plan
from avsbench_harness.launch.slurm_queue import Cluster, job_of, note_job, queued_runs
from avsbench_harness.launch.status import Outcome, impossible, look_at
from avsbench_harness.launch.sweep import Cell, distinct
from avsbench_harness.recipe.resolve import read_yaml
from avsbench_harness.schema import Schema

if TYPE_CHECKING:
    from filelock import FileLock

#: Seconds between looks at the runs' files.
POLL = 2.0

#: Jobs per array: SLURM refuses more unless its MaxArraySize was raised.
ARRAY = 1000

_MINUTES = {"m": 1.0, "h": 60.0, "d": 1440.0}


class Resources(Schema):
    """What each job asks the cluster for; ``None`` leaves it to the cluster."""

    partition: str | None = None
    account: str | None = None
    gpus: int = Field(0, ge=0, description="per job")
    cpus: int = Field(4, ge=1, description="cores per job")
    memory: str | None = Field(None, pattern=r"^\d+(MB|GB)$", description="such as 32GB")
    time: str = Field("24h", pattern=r"^\d+(\.\d+)?[mhd]$", description="such as 90m, 24h or 2d")
    grace: int = Field(120, ge=1, description="seconds between the notice and the end of the time")
    timeouts: int = Field(100, ge=0, description="how often a job goes on after its time was up")
    parallel: int = Field(256, ge=1, description="jobs of an array that run at a time")
    setup: list[str] = Field([], description="lines of shell before the run")

    @property
    def minutes(self) -> int:
        """The time limit, at least a minute."""
        return max(1, round(float(self.time[:-1]) * _MINUTES[self.time[-1]]))


def read_resources(path: Path) -> Resources:
    """The resources in a YAML file."""
    return Resources.parse(read_yaml(path), str(path))


@dataclass(frozen=True)
class Job:
    """What a job does, called on the node that the cluster gave it.

    Attributes:
        run_id: of the run as it was planned by whoever submitted it.
        request: plans the same run on the node.
    """

    run_id: str
    request: Request

    def __call__(self) -> None:
        """Carry the run out, or go on with it.

        Raises:
            AvsbError: it cannot be carried out here; the reason is in the run's heartbeat too.
        """
        folder = self.request.out / "runs" / self.run_id
        claim = _wait_for_claim(folder)
        reason, notice = "", None
        try:
            with beating(folder):
                self._execute()
        except Interrupted as stop:
            notice = next((sign for sign in NOTICES if 128 + sign == stop.exit_code), None)
            if notice is None:
                raise
        except Exception as error:
            reason = one_line(error)
            raise
        finally:
            end_claim(folder, claim, reason)
        if notice is not None:
            signal.raise_signal(notice)  # the state is saved: now submitit's handler requeues the job

    def checkpoint(self) -> Any:
        """What the job is to do when it starts again: the same, from the run's checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _execute(self) -> None:
        run = plan(self.request)
        if run.id != self.run_id:
            raise AvsbError(
                f"On {socket.gethostname()} this run would be {run.id}: its data, weights or code "
                f"are not those of the machine that submitted {self.run_id}."
            )
        execute(run)


def run_jobs(
    planned: Sequence[Cell],
    *,
    out: Path,
    resources: Resources,
    cluster: Cluster = "slurm",
    notify: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Submit what is missing of a grid and not yet on its way, and watch until every run has ended.

    Args:
        planned: the cells; those without a run come back as failed.
        out: folder for ``runs/``, ``results/`` and ``jobs/``, on a disk that the nodes share.
        resources: of each job.
        cluster: ``local`` starts the jobs as processes of this machine, all at once.
        notify: called when a run is queued, when it starts and when it ends.

    Returns:
        one outcome per distinct run and per cell that cannot be run.

    Raises:
        UsageError: submitit or the cluster's commands are missing, or the cluster refuses the jobs.
        Interrupted: the watcher was told to stop; the jobs go on.
    """
    executor = _executor(out, resources, cluster)
    outcomes = impossible(planned)
    for outcome in outcomes:
        notify(outcome)
    cells = {cell.run.id: cell for cell in distinct(planned) if cell.run is not None}
    runs = {name: cell.run for name, cell in cells.items() if cell.run is not None}
    queued = queued_runs(runs.values())
    missing = [name for name, run in runs.items() if look_at(run, queued).state in ("pending", "failed")]
    with stop_request() as stop:
        jobs = _submit(executor, cluster, [(runs[name], cells[name].request) for name in missing])
        shown: dict[str, str] = {}
        while runs:
            started = time.monotonic()
            if cluster == "local":
                for job in jobs:
                    job.done()  # takes leave of the process, which would look alive otherwise
            queued = queued_runs(runs.values())
            for name, run in list(runs.items()):
                outcome = _ending(run, queued)
                if shown.get(name) != outcome.state:
                    notify(outcome)
                    shown[name] = outcome.state
                if outcome.state in ("done", "failed"):
                    outcomes.append(outcome)
                    del runs[name]
            if stop:
                raise stop.error("The jobs go on; the same command watches them again.")
            looked = time.monotonic() - started
            time.sleep(
                max(POLL, 4 * looked) if runs else 0
            )  # many runs on a slow disk are looked at less often
    return outcomes


def check_executor(cluster: Cluster) -> None:
    """Refuse a cluster that cannot be reached from here.

    Raises:
        UsageError: submitit is not installed, or a command of the cluster is missing.
    """
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise UsageError(
            "--executor slurm needs submitit; install it with pip install 'avsbench-harness[cluster]'."
        ) from None
    missing = [name for name in ("sbatch", "srun", "squeue") if shutil.which(name) is None]
    if cluster == "slurm" and missing:
        raise UsageError(
            f"--executor slurm needs the command {missing[0]}, which is not on this machine; "
            "start the sweep where jobs are submitted from."
        )


def _executor(out: Path, resources: Resources, cluster: Cluster) -> Any:
    """Submitit's executor with the resources, all of whose files lie in ``out/jobs``."""
    check_executor(cluster)
    import submitit

    executor = submitit.AutoExecutor(
        out / "jobs", cluster=cluster, **{f"{cluster}_max_num_timeout": resources.timeouts}
    )
    asked = {
        "timeout_min": resources.minutes,
        "cpus_per_task": resources.cpus,
        "gpus_per_node": resources.gpus or None,
        "name": "avsb",
        "stderr_to_stdout": True,
        f"{cluster}_setup": resources.setup or None,
        "slurm_signal_delay_s": resources.grace,
        "slurm_partition": resources.partition,
        "slurm_account": resources.account,
        "slurm_mem": resources.memory,
        "slurm_array_parallelism": resources.parallel,
    }
    executor.update_parameters(**{name: value for name, value in asked.items() if value is not None})
    return executor


def _submit(executor: Any, cluster: Cluster, asked: Sequence[tuple[Run, Request]]) -> list[Any]:
    """Submit the runs as arrays and write down which job is whose."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    submitted: list[Any] = []
    for start in range(0, len(asked), ARRAY):
        part = asked[start : start + ARRAY]
        try:
            with executor.batch():
                jobs = [executor.submit(Job(run.id, request)) for run, request in part]
        except (FailedJobError, FailedSubmissionError) as error:
            raise UsageError(f"{cluster} refuses the jobs: {' '.join(str(error).split())[-300:]}") from None
        for (run, _), job in zip(part, jobs, strict=True):
            note_job(run, cluster, job.job_id, str(job.paths.stdout))
        submitted += jobs
    return submitted


def _ending(run: Run, queued: set[str]) -> Outcome:
    """How a submitted run stands; one without a job and without a record has failed."""
    found = look_at(run, queued)
    job = job_of(run)
    log = Path(job.log) if job is not None else None
    if found.state in ("running", "queued", "done"):
        return Outcome(found.name, found.state, log=log, progress=found.progress)
    reason = found.reason or "its job ended before the run was done"
    return Outcome(found.name, "failed", reason, log)


def _wait_for_claim(folder: Path) -> FileLock:
    """The claim on a run; a machine that was just taken away may still be thought alive."""
    patience = time.monotonic() + (MISSED + 2) * INTERVAL
    while (claim := take_claim(folder, CLAIM)) is None:
        if time.monotonic() > patience:
            raise Busy(f"Another process works on {folder.name}.")
        time.sleep(min(1.0, INTERVAL))
    return claim
