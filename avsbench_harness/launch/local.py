"""The runs of a grid on one machine: several processes at a time, with a log file each.

All state is in files. A process that works on a run holds a claim in the run's folder, so that two sweeps
over the same grid share the work, and a restarted sweep continues with what is left.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from filelock import FileLock

from avsbench_harness.engine.heartbeat import CLAIM, end_claim, is_worked_on, keep_alive, take_claim
from avsbench_harness.engine.interrupt import StopRequest, stop_request
from avsbench_harness.engine.run import Run
from avsbench_harness.launch.status import Outcome, invalid_cells, is_done
from avsbench_harness.launch.sweep import Cell, distinct

#: Seconds between polls of the running processes.
POLL = 0.2


@dataclass
class _Child:
    """A running process and the claim on its run."""

    run: Run
    process: subprocess.Popen[bytes]
    claim: FileLock
    output: IO[bytes]
    started: float
    slot: int


def run_all(
    planned: Sequence[Cell],
    *,
    jobs: int = 1,
    notify: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Execute the runs of a grid that are not done.

    Args:
        planned: the cells; those without a run are returned as failed.
        jobs: number of concurrent processes. On CUDA they are distributed over the devices, on the CPU they
            share the cores.
        notify: called when a run starts and when it ends.

    Returns:
        one outcome per distinct run and per cell without a run.

    Raises:
        Interrupted: a signal was received; the runs have saved their state.
    """
    outcomes = invalid_cells(planned)
    for outcome in outcomes:
        notify(outcome)
    with stop_request() as stop:
        outcomes += _Pool(max(1, jobs), notify, stop).work(distinct(planned))
    return outcomes


class _Pool:
    """The worker processes of one sweep."""

    def __init__(self, jobs: int, notify: Callable[[Outcome], None], stop: StopRequest) -> None:
        self.jobs = jobs
        self.notify = notify
        self.stop = stop
        self.children: list[_Child] = []
        self.outcomes: list[Outcome] = []

    def work(self, planned: Sequence[Cell]) -> list[Outcome]:
        """Execute all cells, and return one outcome each."""
        waiting = deque(planned)
        try:
            while waiting or self.children:
                self._collect()
                self._start_some(waiting)
                if self.stop:
                    raise self.stop.error("The runs saved their state; rerun the same command to resume.")
                time.sleep(POLL if self.children or waiting else 0)
        finally:
            self._end_children()
        return self.outcomes

    def _start_some(self, waiting: deque[Cell]) -> None:
        """Fill the free slots; runs claimed by other processes move to the end of the queue."""
        for _ in range(len(waiting)):
            if len(self.children) >= self.jobs:
                return
            cell = waiting.popleft()
            assert cell.run is not None  # the caller passes only cells with a run
            if is_done(cell.run):
                self._end(Outcome(cell.run.id, "done"))
                continue
            claim = None if is_worked_on(cell.run.folder) else take_claim(cell.run.folder, CLAIM)
            if claim is None:
                waiting.append(cell)
                continue
            if is_done(cell.run):  # finished by another process since the check above
                end_claim(cell.run.folder, claim)
                self._end(Outcome(cell.run.id, "done"))
                continue
            self._start(cell, cell.run, claim)

    def _start(self, cell: Cell, run: Run, claim: FileLock) -> None:
        slot = min(set(range(self.jobs)) - {child.slot for child in self.children})
        output = (run.folder / "output.log").open("ab")
        command = [sys.executable, "-m", "avsbench_harness", "run", *cell.request.arguments()]
        environment = dict(os.environ)
        if run.device == "cpu":
            threads = max(1, (os.cpu_count() or 1) // self.jobs)
            environment.setdefault("OMP_NUM_THREADS", str(threads))
        if run.device == "cuda":  # no particular device was requested
            command += ["--device", f"cuda:{slot % torch.cuda.device_count()}"]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # an interrupt at the terminal reaches the runs through this process only
        )
        self.children.append(_Child(run, process, claim, output, time.monotonic(), slot))
        self.notify(Outcome(run.id, "running", log=Path(output.name)))

    def _collect(self) -> None:
        """Reap the processes that have ended."""
        for child in list(self.children):
            code = child.process.poll()
            if code is None:
                keep_alive(child.run.folder, child.process.pid)
                continue
            self.children.remove(child)
            child.output.close()
            log = Path(child.output.name)
            seconds = time.monotonic() - child.started
            if code == 0 and is_done(child.run):
                outcome = Outcome(child.run.id, "done", log=log, seconds=seconds)
            else:
                outcome = Outcome(child.run.id, "failed", _reason(child.run, code, log), log, seconds)
            end_claim(child.run.folder, child.claim, outcome.reason)
            self._end(outcome)

    def _end(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.notify(outcome)

    def _end_children(self) -> None:
        """Terminate the remaining processes, which save their state, and wait for them."""
        for child in self.children:
            child.process.terminate()
        for child in self.children:
            child.process.wait()
            child.output.close()
            end_claim(child.run.folder, child.claim)


def _reason(run: Run, code: int, log: Path) -> str:
    """The reason of a failure: the last line of output, and the signal that killed the process, if any."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    last = lines[-1].removeprefix("error: ") if lines else "it printed nothing"
    return f"killed by signal {-code} after: {last}" if code < 0 else last
