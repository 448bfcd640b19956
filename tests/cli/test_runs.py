"""``avsb runs``: runs of the tiny method, done, trained, interrupted and failed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from filelock import FileLock

from avsbench_harness.cli.watch_page import curve
from avsbench_harness.engine import train as engine
from avsbench_harness.engine.heartbeat import write_heartbeat
from avsbench_harness.errors import Interrupted


@pytest.fixture
def done(finished: Path) -> str:
    """The id of the finished run in ``finished``."""
    (folder,) = (finished / "runs").iterdir()
    return folder.name


def test_list_shows_state_scores_and_changes(avsb, finished: Path, done: str, planned, monkeypatch) -> None:
    stopped = planned(finished, "epochs=5", seed=3)
    real = engine.Trainer._step

    def step(self, batch, ids):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(self, batch, ids)

    with monkeypatch.context() as patch:
        patch.setattr(engine.Trainer, "_step", step)
        with pytest.raises(Interrupted):
            engine.train(stopped)
    found = {one["run"]: one for one in avsb("runs", "list", "--out", finished, "--json").json}
    assert list(found) == [stopped.id, done]  # the latest first
    record = json.loads((finished / "results" / f"{done}.json").read_text())
    assert found[done]["state"] == "done"
    assert found[done]["score"] == record["scores"][0]["metrics"]["J"]
    best = max(one["metrics"]["J"] for one in record["training"]["validations"])
    assert found[done]["validation"] == best
    own = [*(finished / "runs" / done).iterdir(), finished / "submissions" / f"{done}.npz"]
    assert found[done]["size"] == sum(path.stat().st_size for path in own)
    assert found[stopped.id]["state"] == "stopped"
    assert (found[stopped.id]["step"], found[stopped.id]["total"]) == (1, 10)
    assert found[stopped.id]["score"] is None
    only = avsb("runs", "list", "--out", finished, "--state", "stopped", "--json").json
    assert [one["run"] for one in only] == [stopped.id]
    assert avsb("runs", "list", "--out", finished, "--state", "gone").code == 2
    text = avsb("runs", "list", "--out", finished).out
    assert "stopped" in text
    assert avsb("runs", "list", "--out", finished / "empty").out == f"no runs in {finished / 'empty/runs'}\n"


def test_changes_are_those_of_the_preset(avsb, real_s4: Path, tmp_path: Path) -> None:
    common = ("--method", "tpavi", "--backbone", "resnet18", "--data", real_s4, "--out", tmp_path)
    small = ("--preset", "smoke", "--no-pretrained", "--set", "iterations=1", "--set", "optimizer.lr=0.5")
    assert avsb("train", *common, *small, "--device", "cpu").code == 0
    (one,) = avsb("runs", "list", "--out", tmp_path, "--json").json
    assert one["state"] == "trained"
    assert "optimizer.lr=0.5" in one["changes"]
    assert "optimizer.lr=0.5" in avsb("runs", "show", "s4", "--out", tmp_path).out


def test_a_damaged_spec_is_a_failed_run(avsb, finished: Path, done: str) -> None:
    (finished / "runs" / "s4-broken").mkdir()
    (finished / "runs" / "s4-broken" / "spec.json").write_text("[]")
    found = {one["run"]: one for one in avsb("runs", "list", "--out", finished, "--json").json}
    assert found["s4-broken"]["state"] == "failed"
    assert "is not the spec of a run" in found["s4-broken"]["reason"]
    assert found[done]["state"] == "done"


def test_show_and_path(avsb, finished: Path, done: str) -> None:
    shown = avsb("runs", "show", done[:6], "--out", finished, "--json").json
    assert shown["run"] == done
    assert shown["spec"]["task"] == "s4"
    assert shown["record"]["run_id"] == done
    assert "object/1" in avsb("runs", "show", done, "--out", finished).out
    folder = finished / "runs" / done
    assert avsb("runs", "path", done[:5], "--out", finished).out == f"{folder}\n"
    assert avsb("runs", "path", folder, "--of", "weights").out.endswith(f"/{done}/weights.safetensors\n")
    submission = avsb("runs", "path", done, "--of", "submission", "--out", finished, "--json").json["path"]
    assert Path(submission).is_file()
    Path(submission).unlink()
    assert avsb("runs", "path", done, "--of", "submission", "--out", finished).code == 4
    assert avsb("runs", "path", done, "--of", "tensors", "--out", finished).code == 2
    unknown = avsb("runs", "show", "gone", "--out", finished)
    assert unknown.code == 2
    assert "Unknown run 'gone'" in unknown.err


def test_diff_of_spec_and_scores(avsb, finished: Path, done: str, tiny: str, real_s4: Path) -> None:
    common = ("--method", tiny, "--data", real_s4, "--out", finished, "--device", "cpu", "--seed", 1)
    assert avsb("run", *common, "--set", "optimizer.lr=0.05").code == 0
    (other,) = {path.name for path in (finished / "runs").iterdir()} - {done}
    record = finished / "results" / f"{other}.json"
    values = json.loads(record.read_text())
    values["environment"]["python"] = "3.99"
    record.write_text(json.dumps(values))
    found = avsb("runs", "diff", done, other, "--out", finished, "--json").json["differences"]
    changed = {(one["group"], one["key"]): (one["a"], one["b"]) for one in found}
    assert changed["spec", "seed"] == (0, 1)
    assert changed["spec", "recipe.optimizer.lr"][1] == 0.05
    assert changed["environment", "python"][1] == "3.99"
    assert {key for group, key in changed if group == "spec"} == {"seed", "recipe.optimizer.lr"}
    assert all(group in ("spec", "environment", "scores") for group, _ in changed)
    assert "recipe.optimizer.lr" in avsb("runs", "diff", done, other, "--out", finished).out
    same = avsb("runs", "diff", done, done, "--out", finished)
    assert same.out == f"{done} and {done} do not differ\n"


def test_rm_says_what_is_lost_and_asks(avsb, finished: Path, done: str, tmp_path: Path, monkeypatch) -> None:
    folder, submissions = finished / "runs" / done, finished / "submissions"
    other = finished / "runs" / "s4-tiny-r50-s9-0123456789"
    shutil.copytree(folder, other)
    spec = json.loads((folder / "spec.json").read_text())
    spec["init"] = {"sha256": "0" * 64, "file": f"{done}/weights.safetensors", "published": False}
    (other / "spec.json").write_text(json.dumps(spec))
    asked = avsb("runs", "rm", done, "--out", finished)  # not a terminal
    assert asked.code == 2
    assert "pass --yes" in asked.err
    assert f"removes {folder}" in asked.out
    assert f"removes {submissions / f'{done}.npz'}" in asked.out
    assert f"results/{done}.json stays, but loses its submission" in asked.out
    assert f"{other.name} started from its weights and cannot be reproduced" in asked.out
    assert folder.is_dir()
    removed = avsb("runs", "rm", done, "--out", finished, "--yes", "--json")
    assert removed.code == 0, removed.err
    assert [one["run"] for one in removed.json] == [done]
    assert not folder.exists()
    assert not list(submissions.glob(f"{done}*"))
    assert (finished / "results" / f"{done}.json").is_file()
    assert other.is_dir()


def test_rm_keeps_a_run_that_a_process_works_on(avsb, finished: Path, done: str) -> None:
    folder = finished / "runs" / done
    with FileLock(folder / ".lock"):
        refused = avsb("runs", "rm", done, "--out", finished, "--yes")
    assert refused.code == 1
    assert f"A process works on {done}" in refused.err
    assert (folder / "weights.safetensors").is_file()


def test_watch_shows_progress(avsb, finished: Path, done: str) -> None:
    folder = finished / "runs" / done
    page = avsb("runs", "watch", done[:6], "--out", finished)
    assert page.code == 0, page.err
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    last = [line for line in lines if "loss" in line][-1]
    assert f"loss {last['loss']:.4g}" in page.out
    assert f"{last['measured']['clips_per_second']:.2f} clips/s" in page.out
    assert f"{lines[-1]['val']['J']:.4f}" in page.out
    with FileLock(folder / ".lock"):
        (finished / "results" / f"{done}.json").unlink()
        write_heartbeat(folder, step=3, total=12, clips_per_second=2.0, seconds_left=75.0)
        running = avsb("runs", "watch", done, "--out", finished, "--once")
        assert "running" in running.out
        assert "3/12 (25%), 0:01:15 left" in running.out
        state = avsb("runs", "watch", done, "--out", finished, "--json").json
    assert state["state"] == "running"
    assert state["seconds_left"] == 75.0
    assert state["last"]["lr"] == last["lr"]
    assert time.time() - state["last"]["measured"]["time"] < 600


def test_curves() -> None:
    assert curve([]) == ""
    assert curve([2.0, 2.0]) == "▁▁ 2"
    assert curve([float(value) for value in range(8)]) == "▁▂▃▄▅▆▇█ 7"
    assert len(curve([1.0, 0.0] * 480).split()[0]) == 48
