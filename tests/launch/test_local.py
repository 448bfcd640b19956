from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from avsbench_harness.engine.heartbeat import CLAIM, TRAINING
from avsbench_harness.errors import Interrupted
from avsbench_harness.launch.local import run_all
from avsbench_harness.launch.status import grid_status, state_of
from avsbench_harness.launch.sweep import cells, estimate
from avsbench_harness.results.record import read_record, read_records

pytestmark = pytest.mark.slow  # every run is a process of its own


def test_failed_runs_do_not_stop_the_others_and_are_retried(grid, tmp_path: Path) -> None:
    rows = [{"name": "good"}, {"name": "bad", "set": {"options.poison_step": 1}}]
    planned = cells(grid(task=["s4", "ms3"], rows=rows), tmp_path, "cpu")
    assert {outcome.state for outcome in grid_status(planned)} == {"pending", "failed"}
    seen: list[tuple[str, str]] = []
    outcomes = run_all(planned, jobs=2, notify=lambda outcome: seen.append((outcome.name, outcome.state)))
    states = {outcome.name: outcome for outcome in outcomes}
    good, bad = (
        next(cell.run for cell in planned if cell.run and cell.row == row) for row in ("good", "bad")
    )
    assert states[good.id].state == "done"
    assert read_record(good.record_file).status == "done"
    assert states[bad.id].state == "failed"
    assert "not finite at step 1" in states[bad.id].reason
    assert "not finite" in (read_record(bad.record_file).reason or "")
    assert states[bad.id].log is not None
    assert "not finite" in states[bad.id].log.read_text()
    assert any("s4" not in name and state == "failed" for name, state in seen)  # ms3 is not on disk
    assert seen.index((good.id, "running")) < seen.index((good.id, "done"))
    assert [state_of(good), state_of(bad)] == ["done", "failed"]
    seconds = estimate(good, read_records(tmp_path / "results"))
    assert seconds is not None
    assert seconds > 0

    before = good.record_file.read_bytes()
    seen.clear()
    again = {outcome.name: outcome.state for outcome in run_all(planned, jobs=1)}
    assert (again[good.id], again[bad.id]) == ("done", "failed")
    assert good.record_file.read_bytes() == before


def test_two_sweeps_share_the_runs(grid, tmp_path: Path) -> None:
    asked = grid(seeds="0..2")
    file = tmp_path / "grid.yaml"
    file.write_text(yaml.safe_dump(asked.model_dump(mode="json", exclude_defaults=True)))
    command = [sys.executable, "-m", "avsbench_harness", "sweep", str(file), "--out", str(tmp_path)]
    both = [subprocess.Popen([*command, "--device", "cpu"]) for _ in range(2)]
    assert [one.wait(300) for one in both] == [0, 0]
    planned = cells(asked, tmp_path, "cpu")
    for cell in planned:
        assert cell.run is not None
        steps = (cell.run.folder / "log.jsonl").read_text().count('"loss"')
        assert steps == 1  # one iteration, trained once
        assert (cell.run.folder / "output.log").read_text().count("record:") == 1
    assert len(read_records(tmp_path / "results")) == 3


@pytest.mark.parametrize("lock", [CLAIM, TRAINING])  # of another sweep, of `avsb run`
def test_a_run_of_another_process_is_awaited(grid, tmp_path: Path, lock: str) -> None:
    (cell,) = cells(grid(), tmp_path, "cpu")
    assert cell.run is not None
    cell.run.folder.mkdir(parents=True)
    claim = FileLock(cell.run.folder / lock, thread_local=False)  # another thread gives it back
    claim.acquire()
    assert state_of(cell.run) == "running"
    done = threading.Event()
    threading.Timer(2, lambda: (done.set(), claim.release())).start()
    (outcome,) = run_all([cell], jobs=1)
    assert done.is_set()
    assert outcome.state == "done"


def test_the_runs_of_a_stopped_sweep_resume(grid, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("AVSB_TEST_STEP_SECONDS", "1")
    planned = cells(grid(set={"iterations": 30}), tmp_path, "cpu")
    run = planned[0].run
    assert run is not None

    def stop_once_it_trains() -> None:
        while not (run.folder / "log.jsonl").is_file() or not (run.folder / "log.jsonl").read_text():
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_once_it_trains, daemon=True).start()
    with pytest.raises(Interrupted, match="saved their state"):
        run_all(planned, jobs=1)
    assert list((run.folder / "checkpoints").glob("step-*"))
    assert state_of(run) == "pending"
    assert not run.record_file.exists()
