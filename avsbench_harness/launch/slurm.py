"""The runs of a grid as SLURM jobs, through submitit: one job per run, which is requeued when preempted.

The submitting process only watches the runs' files; jobs continue without it.
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

from avsbench_harness.console import configure_logging
from avsbench_harness.engine.heartbeat import CLAIM, INTERVAL, MISSED, beating, end_claim, take_claim
from avsbench_harness.engine.interrupt import PREEMPTION, stop_request
from avsbench_harness.engine.run import Run
from avsbench_harness.errors import AvsbError, Busy, Interrupted, UsageError, one_line
from avsbench_harness.launch.execute import execute
from avsbench_harness.launch.request import Request, plan
from avsbench_harness.launch.slurm_queue import queued_runs, read_job, write_job
from avsbench_harness.launch.status import Outcome, invalid_cells, run_status
from avsbench_harness.launch.sweep import Cell, distinct
from avsbench_harness.recipe.yaml_reader import read_yaml
from avsbench_harness.schema import Schema

if TYPE_CHECKING:
    from filelock import FileLock

#: Seconds between polls of the runs' files.
POLL = 2.0

#: Jobs per array; SLURM's default MaxArraySize allows no more.
ARRAY = 1000

#: Submitit's name of the executor; tests use its local one.
_EXECUTOR = "slurm"

_MINUTES = {"m": 1.0, "h": 60.0, "d": 1440.0}


class Resources(Schema):
    """Resources of each job; ``None`` leaves the choice to the cluster."""

    partition: str | None = None
    account: str | None = None
    gpus: int = Field(0, ge=0, description="per job")
    cpus: int = Field(4, ge=1, description="cores per job")
    memory: str | None = Field(None, pattern=r"^\d+(MB|GB)$", description="such as 32GB")
    time: str = Field("24h", pattern=r"^\d+(\.\d+)?[mhd]$", description="such as 90m, 24h or 2d")
    grace: int = Field(120, ge=1, description="seconds between the preemption signal and the time limit")
    timeouts: int = Field(100, ge=0, description="how often a job is requeued after its time limit")
    parallel: int = Field(256, ge=1, description="jobs of an array that run concurrently")
    setup: list[str] = Field([], description="shell commands before the run")

    @property
    def minutes(self) -> int:
        """The time limit in minutes, at least 1."""
        return max(1, round(float(self.time[:-1]) * _MINUTES[self.time[-1]]))


def read_resources(path: Path) -> Resources:
    """Read resources from a YAML file."""
    return Resources.parse(read_yaml(path), str(path))


@dataclass(frozen=True)
class Job:
    """One job, called on its node.

    Attributes:
        run_id: of the run, as planned by the submitting process.
        request: of the run; it is planned again on the node.
    """

    run_id: str
    request: Request

    def __call__(self) -> None:
        """Execute the run, or resume it.

        Raises:
            AvsbError: the run fails on this node; its heartbeat holds the reason too.
        """
        configure_logging()
        folder = self.request.out / "runs" / self.run_id
        claim = _wait_for_claim(folder)
        reason, notice = "", None
        try:
            with beating(folder):
                self._execute()
        except Interrupted as stop:
            notice = next((number for number in PREEMPTION if 128 + number == stop.exit_code), None)
            if notice is None:
                raise
        except Exception as error:
            reason = one_line(error)
            raise
        finally:
            end_claim(folder, claim, reason)
        if notice is not None:
            signal.raise_signal(notice)  # the state is saved; submitit's handler requeues the job

    def checkpoint(self) -> Any:
        """The job to requeue, by submitit's convention: the same one, which resumes the run."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _execute(self) -> None:
        run = plan(self.request)
        if run.id != self.run_id:
            raise AvsbError(
                f"On {socket.gethostname()} this run would be {run.id}: its data, weights or code "
                f"differ from those of the machine that submitted {self.run_id}."
            )
        execute(run)


def run_jobs(
    planned: Sequence[Cell],
    *,
    out: Path,
    resources: Resources,
    notify: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Submit the runs of a grid that are neither done nor queued, and wait until every run has ended.

    Args:
        planned: the cells; those without a run are returned as failed.
        out: folder for ``runs/``, ``results/`` and ``jobs/``, on a disk that the nodes share.
        resources: of each job.
        notify: called when a run is queued, when it starts and when it ends.

    Returns:
        one outcome per distinct run and per cell without a run.

    Raises:
        UsageError: submitit or SLURM's commands are missing, or SLURM refuses the jobs.
        Interrupted: this process was told to stop; the jobs continue.
    """
    executor = _executor(out, resources)
    outcomes = invalid_cells(planned)
    for outcome in outcomes:
        notify(outcome)
    cells = {cell.run.id: cell for cell in distinct(planned) if cell.run is not None}
    runs = {name: cell.run for name, cell in cells.items() if cell.run is not None}
    queued = queued_runs(runs.values())
    missing = [name for name, run in runs.items() if run_status(run, queued).state in ("pending", "failed")]
    with stop_request() as stop:
        _submit(executor, [(runs[name], cells[name].request) for name in missing])
        shown: dict[str, str] = {}
        while runs:
            started = time.monotonic()
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
                raise stop.error("The jobs continue; rerun the same command to watch them.")
            # Many runs on a slow disk are polled less often.
            time.sleep(max(POLL, 4 * (time.monotonic() - started)) if runs else 0)
    return outcomes


def check_slurm() -> None:
    """Check that jobs can be submitted from this machine.

    Raises:
        UsageError: submitit is not installed, or a command of SLURM is missing.
    """
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise UsageError(
            "--executor slurm needs submitit; install it with pip install 'avsbench-harness[cluster]'."
        ) from None
    missing = [name for name in ("sbatch", "srun", "squeue") if shutil.which(name) is None]
    if missing:
        raise UsageError(
            f"--executor slurm needs the command {missing[0]}, which is not on this machine; "
            "start the sweep on a machine that submits jobs."
        )


def _executor(out: Path, resources: Resources) -> Any:
    """Submitit's executor with these resources; its files are in ``out/jobs``."""
    check_slurm()
    import submitit

    executor = submitit.AutoExecutor(
        out / "jobs", cluster=_EXECUTOR, slurm_max_num_timeout=resources.timeouts
    )
    asked = {
        "timeout_min": resources.minutes,
        "cpus_per_task": resources.cpus,
        "gpus_per_node": resources.gpus or None,
        "name": "avsb",
        "stderr_to_stdout": True,
        "slurm_setup": resources.setup or None,
        "slurm_signal_delay_s": resources.grace,
        "slurm_partition": resources.partition,
        "slurm_account": resources.account,
        "slurm_mem": resources.memory,
        "slurm_array_parallelism": resources.parallel,
    }
    executor.update_parameters(**{name: value for name, value in asked.items() if value is not None})
    return executor


def _submit(executor: Any, asked: Sequence[tuple[Run, Request]]) -> None:
    """Submit the runs as job arrays, and write each run's job into its folder."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    for start in range(0, len(asked), ARRAY):
        part = asked[start : start + ARRAY]
        try:
            with executor.batch():
                jobs = [executor.submit(Job(run.id, request)) for run, request in part]
        except (FailedJobError, FailedSubmissionError) as error:
            raise UsageError(f"SLURM refuses the jobs: {' '.join(str(error).split())[-300:]}") from None
        for (run, _), job in zip(part, jobs, strict=True):
            write_job(run, job.job_id, str(job.paths.stdout))


def _ending(run: Run, queued: set[str]) -> Outcome:
    """The state of a submitted run; one without a job and without a record has failed."""
    found = run_status(run, queued)
    job = read_job(run)
    log = Path(job.log) if job is not None else None
    if found.state in ("running", "queued", "done"):
        return Outcome(found.name, found.state, log=log, progress=found.progress)
    reason = found.reason or "its job ended before the run was done"
    return Outcome(found.name, "failed", reason, log)


def _wait_for_claim(folder: Path) -> FileLock:
    """Claim a run; the heartbeat of a node that was just lost may still count as alive."""
    deadline = time.monotonic() + (MISSED + 2) * INTERVAL
    while (claim := take_claim(folder, CLAIM)) is None:
        if time.monotonic() > deadline:
            raise Busy(f"Another process works on {folder.name}.")
        time.sleep(min(1.0, INTERVAL))
    return claim
