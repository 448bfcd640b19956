"""Trainings with trackers, one of them interrupted."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from avsbench_harness.engine import train as engine
from avsbench_harness.engine.run import Run
from avsbench_harness.errors import Interrupted

#: Three validations, after steps 2, 4 and 5.
SETTINGS = ("iterations=5", "validation.every_steps=2", "options.width=4", "optimizer.lr=0.01")


@pytest.fixture
def tracked(planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Train with a tracker; the training is killed in the steps of ``stops``, and resumed."""

    def make(name: str, *stops: int, seed: int = 0) -> Run:
        run = replace(planned(tmp_path / f"{name}-{seed}", *SETTINGS, seed=seed), trackers=(name,))
        for stop in stops:
            with monkeypatch.context() as patch:
                _kill_in_step(patch, stop)
                with pytest.raises(Interrupted):
                    engine.train(run)
        engine.train(run)
        return run

    return make


def _kill_in_step(patch: pytest.MonkeyPatch, number: int) -> None:
    """End the training in a step, before its checkpoint: the run resumes from its last validation."""
    real = engine.Trainer._step

    def step(self, batch, ids):
        if self.state.step + 1 == number:
            patch.setattr(engine.Trainer, "_save", lambda self, log: self._read(log))
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, batch, ids)

    patch.setattr(engine.Trainer, "_step", step)
