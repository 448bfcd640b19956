"""Runs as SLURM jobs: submitted, preempted, requeued, and resumed from the checkpoint."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from avsbench_harness.engine.heartbeat import process_exists, read_heartbeat
from avsbench_harness.engine.run import Run
from avsbench_harness.errors import Interrupted, UsageError
from avsbench_harness.launch import slurm as slurm_module
from avsbench_harness.launch import slurm_queue
from avsbench_harness.launch.slurm import Resources, read_resources, run_jobs
from avsbench_harness.launch.slurm_queue import read_job
from avsbench_harness.launch.status import Outcome, grid_status, state_of
from avsbench_harness.launch.sweep import cells
from avsbench_harness.results.record import read_record

STEPS = 12


@pytest.fixture
def local_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run jobs as local processes; the queue holds those that are alive."""
    pytest.importorskip("submitit")
    submitted: list[str] = []
    write_job = slurm_module.write_job

    def note(run: Run, job: str, log: str) -> None:
        submitted.append(job)
        write_job(run, job, log)

    def alive() -> set[str]:
        for job in submitted:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(int(job), os.WNOHANG)  # an ended process exists until it is reaped
        return {job for job in submitted if process_exists(int(job))}

    monkeypatch.setattr(slurm_module, "_EXECUTOR", "local")
    monkeypatch.setattr(slurm_module, "check_slurm", lambda: None)
    monkeypatch.setattr(slurm_module, "write_job", note)
    monkeypatch.setattr(slurm_queue, "_jobs_in_queue", alive)


def steps_of(run: Run) -> int:
    log = run.folder / "log.jsonl"
    return log.read_text().count('"loss"') if log.is_file() else 0


def once(condition: Callable[[], object], action: Callable[[], object]) -> threading.Thread:
    """Call ``action`` in another thread once ``condition`` holds."""

    def watch() -> None:
        until = time.monotonic() + 120
        while not condition() and time.monotonic() < until:
            time.sleep(0.1)
        action()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def check_resumed(run: Run, outcome: Outcome) -> None:
    assert outcome.state == "done", outcome
    assert read_record(run.record_file).status == "done"
    assert outcome.log is not None
    log = outcome.log.read_text()
    assert "Requeued job" in log
    assert "Resuming from step" in log
    assert f"of {STEPS}." in log
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, STEPS + 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("partitio: gpu", "Unknown key 'partitio' in .* Did you mean 'partition'"),
        ("time: 12:00:00", "'time' is '12:00:00'"),
        ("memory: plenty", "'memory' is 'plenty'"),
        ("gpus: -1", "'gpus' is -1"),
    ],
)
def test_wrong_resources_are_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "resources.yaml"
    file.write_text(text + "\n")
    with pytest.raises(UsageError, match=message) as error:
        read_resources(file)
    assert "\n" not in str(error.value)


def test_units_of_time_limits() -> None:
    assert [Resources(time=text).minutes for text in ("90m", "1.5h", "2d", "0.1m")] == [90, 90, 2880, 1]


def test_missing_programs_are_named(avsb, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    options = ("sweep", "--method", "combo", "--executor")
    wrong = avsb(*options, "slurm")
    assert wrong.code == 2
    assert "needs the command sbatch" in wrong.err
    monkeypatch.setitem(sys.modules, "submitit", None)
    wrong = avsb(*options, "slurm")
    assert wrong.code == 2
    assert "pip install 'avsbench-harness[cluster]'" in wrong.err
    assert "Unknown executor 'slum'. Did you mean 'slurm'?" in avsb(*options, "slum").err
    assert "--resources is for" in avsb(*options, "local", "--resources", "none.yaml").err


def test_job_arrays_respect_the_limit(grid, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("submitit")
    arrays: list[list[str]] = []

    class Recorder:
        """Takes jobs as submitit's executor does, and only counts them."""

        def batch(self):
            arrays.append([])
            return contextlib.nullcontext()

        def submit(self, job: slurm_module.Job):
            arrays[-1].append(job.run_id)
            name = f"{len(arrays)}_{len(arrays[-1]) - 1}"
            return SimpleNamespace(job_id=name, paths=SimpleNamespace(stdout=Path(f"{name}.out")))

    monkeypatch.setattr(slurm_module, "ARRAY", 2)
    planned = cells(grid(seeds="0..4"), tmp_path, "cpu")
    asked = [(cell.run, cell.request) for cell in planned if cell.run is not None]
    slurm_module._submit(Recorder(), asked)
    assert [len(array) for array in arrays] == [2, 2, 1]
    assert [name for array in arrays for name in array] == [run.id for run, _ in asked]
    found = [read_job(run) for run, _ in asked]
    assert [job.id for job in found if job is not None] == ["1_0", "1_1", "2_0", "2_1", "3_0"]


@pytest.mark.slow
def test_jobs_continue_without_the_submitting_process(local_jobs, grid, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("AVSB_TEST_STEP_SECONDS", "0.4")
    planned = cells(grid(set={"iterations": STEPS}), tmp_path, "cpu")
    run = planned[0].run
    assert run is not None
    asked = {"out": tmp_path, "resources": Resources(time="10m")}
    thread = once(lambda: steps_of(run) >= 1, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted, match="The jobs continue"):
        run_jobs(planned, **asked)
    thread.join()
    assert not run.record_file.exists()
    before = read_job(run)
    (outcome,) = run_jobs(planned, **asked)
    assert outcome.state == "done"
    assert read_job(run) == before
    assert steps_of(run) == STEPS


@pytest.mark.slow
def test_a_preempted_job_resumes(local_jobs, grid, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("AVSB_TEST_STEP_SECONDS", "0.4")
    monkeypatch.setenv("AVSB_HEARTBEAT_SECONDS", "0.5")
    planned = cells(grid(set={"iterations": STEPS}), tmp_path, "cpu")
    run = planned[0].run
    assert run is not None
    found: list[Outcome] = []

    def preempt() -> None:
        found.extend(grid_status(planned))
        beat = read_heartbeat(run.folder)
        assert beat is not None
        os.kill(beat.pid, signal.SIGUSR2)

    def has_beaten() -> bool:
        beat = read_heartbeat(run.folder)
        return beat is not None and beat.step >= 2

    thread = once(has_beaten, preempt)
    seen: list[str] = []
    (outcome,) = run_jobs(
        planned,
        out=tmp_path,
        resources=Resources(time="10m"),
        notify=lambda outcome: seen.append(outcome.state),
    )
    thread.join()
    check_resumed(run, outcome)
    assert "running" in seen
    assert found[0].state == "running"
    assert found[0].progress is not None
    assert found[0].progress.total == STEPS
    assert found[0].progress.clips_per_second
    assert found[0].progress.seconds_left
    assert state_of(run) == "done"


@pytest.mark.slow
def test_a_node_without_the_data_fails_with_the_reason(
    local_jobs, grid, real_s4: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.symlink_to(real_s4, target_is_directory=True)
    planned = cells(grid(data=data), tmp_path, "cpu")
    data.unlink()
    (outcome,) = run_jobs(planned, out=tmp_path, resources=Resources(time="5m"))
    assert outcome.state == "failed"
    assert str(data) in outcome.reason
    assert "\n" not in outcome.reason
    assert grid_status(planned)[0].reason == outcome.reason


@pytest.mark.slow
def test_slurm_requeues_and_cancels(slurm, grid, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("AVSB_TEST_STEP_SECONDS", "0.4")
    planned = cells(grid(set={"iterations": STEPS}, seeds="0..1"), tmp_path, "cpu")
    first, second = (cell.run for cell in planned)
    assert first is not None
    assert second is not None
    found: list[Outcome] = []

    def interfere() -> None:
        found.extend(grid_status(planned))
        works, waits = (read_job(run) for run in (first, second))
        assert works is not None
        assert waits is not None
        subprocess.run(["scancel", waits.id], check=True)
        subprocess.run(["scancel", "--signal=USR2", works.id], check=True)

    thread = once(lambda: steps_of(first) >= 2, interfere)
    resources = Resources(time="10m", cpus=1, parallel=1, setup=["echo the setup was done"])
    outcomes = {outcome.name: outcome for outcome in run_jobs(planned, out=tmp_path, resources=resources)}
    thread.join()
    assert [outcome.state for outcome in found] == ["running", "queued"]
    check_resumed(first, outcomes[first.id])
    assert outcomes[second.id].state == "failed"
    assert "job ended before the run was done" in outcomes[second.id].reason
    assert not second.record_file.exists()
    assert state_of(second) == "pending"
