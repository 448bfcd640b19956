from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avsbench_harness.engine import train as engine
from avsbench_harness.errors import UsageError
from avsbench_harness.tracking import trackers
from avsbench_harness.tracking.json_log import read_log
from avsbench_harness.tracking.tracker import StepEntry, Tracker, ValidationEntry

STEP = StepEntry(1, 1, {"loss": 0.5, "bce": 0.5}, {"usage": 3}, 0.1, 2.0, {"time": 5.0, "memory_gib": 1.0})


class Broken(Tracker):
    """Fails in its second step."""

    def __init__(self, *_: object) -> None:
        self.calls = 0

    def log_step(self, entry: StepEntry) -> None:
        self.calls += 1
        if self.calls > 1:
            raise ConnectionError("no route")

    def log_validation(self, entry: ValidationEntry) -> None:
        raise AssertionError("called after a failure")


def test_unknown_trackers_and_missing_packages_are_refused(monkeypatch) -> None:
    with pytest.raises(UsageError, match="Unknown tracker 'tensorbord'. Did you mean 'tensorboard'"):
        trackers.check_trackers(["tensorbord"])
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"needs the package wandb; .*pip install 'avsbench-harness\[wandb\]'"
    ):
        trackers.check_trackers(["wandb"])


def test_several_trackers_at_once(planned, tmp_path: Path) -> None:
    run = replace(planned(tmp_path, "iterations=1"), trackers=("tensorboard", "trackio"))
    engine.train(run)
    from trackio.sqlite_storage import SQLiteStorage

    assert list((run.folder / "tensorboard").iterdir())
    assert SQLiteStorage.get_logs("avsbench", run.id)


def test_a_failing_tracker_does_not_end_the_training(planned, tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", (__name__, "Broken"))
    monkeypatch.setattr(trackers.importlib, "import_module", lambda name: __import__("sys").modules[name])
    run = replace(planned(tmp_path, "iterations=3"), trackers=("tensorboard",))
    assert engine.train(run).steps == 3
    assert [r.message for r in caplog.records if "no route" in r.message] == [
        "tensorboard failed and gets no more entries: ConnectionError: no route"
    ]


def test_a_tracker_does_not_change_the_result(planned, tmp_path: Path) -> None:
    plain, logged = (planned(tmp_path / name, "options.width=4") for name in ("plain", "logged"))
    engine.train(plain)
    engine.train(replace(logged, trackers=("tensorboard",)))
    logs = [read_log(run.folder / "log.jsonl", measured=False) for run in (plain, logged)]
    assert logs[0] == logs[1]
    assert plain.weights_file.read_bytes() == logged.weights_file.read_bytes()


def test_lines_of_the_log(tmp_path: Path) -> None:
    opened = trackers.open_trackers((), "a", tmp_path, 0, {})
    opened.log_step(STEP)
    image = {"clip": np.zeros((2, 2, 3), np.uint8)}
    opened.log_validation(ValidationEntry(1, 1, {"J": 0.25, "F": None}, {"time": 6.0}, image))
    opened.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')  # a process was killed here
    assert [json.dumps(line) for line in read_log(tmp_path / "log.jsonl")] == [
        '{"step": 1, "epoch": 1, "usage": 3, "loss": 0.5, "bce": 0.5, "lr": 0.1, "gradient_norm": 2.0, '
        '"measured": {"time": 5.0, "memory_gib": 1.0}}',
        '{"step": 1, "epoch": 1, "val": {"J": 0.25, "F": null}, "measured": {"time": 6.0}}',
    ]
    assert all("measured" not in line for line in read_log(tmp_path / "log.jsonl", measured=False))
    trackers.open_trackers((), "a", tmp_path, 0, {}).close()  # resumed from step 0
    assert read_log(tmp_path / "log.jsonl") == []


def test_names_of_scalars() -> None:
    assert STEP.scalars() == {
        "train/usage": 3.0, "train/loss": 0.5, "train/bce": 0.5, "train/epoch": 1.0, "train/lr": 0.1,
        "train/gradient_norm": 2.0, "measured/memory_gib": 1.0,
    }  # fmt: skip
