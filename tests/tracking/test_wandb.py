"""Weights & Biases, through a small fake of the parts of its API that are used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from avsbench_harness.engine.run import Run
from avsbench_harness.tracking.json_log import read_log


class FakeRuns(ModuleType):
    """``wandb`` as documented: a run ignores steps before its last one and merges values of one step."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None)
        self.calls: list[dict[str, Any]] = []
        self.rows: dict[str, dict[int, dict[str, Any]]] = {}
        self.finished = 0

    def init(self, **arguments: Any) -> SimpleNamespace:
        self.calls.append(arguments)
        rows = self.rows.setdefault(arguments["id"], {})

        def log(values: dict[str, Any], step: int) -> None:
            if step >= max(rows, default=0):
                rows.setdefault(step, {}).update(values)

        def finish() -> None:
            self.finished += 1

        return SimpleNamespace(log=log, finish=finish)

    @staticmethod
    def Image(image: Any, caption: str) -> tuple[str, tuple[int, ...]]:
        return caption, image.shape


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeRuns:
    fake = FakeRuns()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delitem(sys.modules, "avsbench_harness.tracking.wandb", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return fake


def test_a_resumed_run_continues_and_stays_offline(tracked: Callable[..., Run], wandb: FakeRuns) -> None:
    run = tracked("wandb", 4)
    assert [(call["id"], call["mode"], call["resume"]) for call in wandb.calls] == [
        (run.id, "offline", "allow")
    ] * 2
    assert wandb.calls[0]["dir"] == str(run.folder)
    assert wandb.calls[0]["config"]["recipe"]["iterations"] == 5
    assert wandb.finished == 2
    rows = wandb.rows[run.id]
    lines = read_log(run.folder / "log.jsonl")
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert {step: row["train/loss"] for step, row in rows.items()} == losses
    scores = {line["step"]: line["val"]["J"] for line in lines if "val" in line}
    assert {step: row["val/J"] for step, row in rows.items() if "val/J" in row} == scores
    clip = run.dataset.clips("val")[0].id
    assert rows[2][f"val/{clip}"] == (clip, (112, 5 * 112, 3))


def test_the_user_can_ask_for_uploads(tracked: Callable[..., Run], wandb: FakeRuns, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    tracked("wandb")
    assert (wandb.calls[0]["mode"], wandb.calls[0]["project"]) == ("online", "mine")


def test_the_real_package_has_what_is_used() -> None:
    real = pytest.importorskip("wandb", reason="the extra wandb is not installed")
    importlib.import_module("avsbench_harness.tracking.wandb")
    assert callable(real.init)
    assert callable(real.Image)
