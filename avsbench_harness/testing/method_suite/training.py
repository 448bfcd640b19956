"""Tests of the training of a method's networks."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor

from avsbench_harness.data.batch import Batch
from avsbench_harness.data.synth import write_synthetic
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.train import Trainer, train
from avsbench_harness.errors import Interrupted
from avsbench_harness.files import sha256_file
from avsbench_harness.launch.request import Request, plan
from avsbench_harness.tasks import get_task
from avsbench_harness.testing.method_suite.base import SuiteBase


class TrainingTests(SuiteBase):
    """Optimisation, and resuming from a checkpoint."""

    def test_a_few_steps_lower_the_loss(self) -> None:
        """Six steps of AdamW on one batch."""
        for model in self.models():
            batch = self.batch(model.task, clips=1)
            model.train()
            optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
            totals = []
            for step in range(6):
                torch.manual_seed(step)
                total = torch.stack(list(model.losses(batch).values())).sum()
                optimizer.zero_grad()
                total.backward()
                optimizer.step()
                totals.append(float(total.detach()))
            assert min(totals[3:]) < totals[0], f"{model.task.name}: {totals}"

    def test_interrupted_training_is_bitwise_reproducible(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Three steps of the smoke recipe, with and without interruption, on clips of the first task."""
        monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
        task = self._tasks[0]
        write_synthetic(tmp_path / "data", get_task(task), (4, 1, 1), seed=0)
        whole, parts = (self._run(task, tmp_path / "data", tmp_path / out) for out in ("whole", "parts"))
        train(whole)
        with monkeypatch.context() as patch:
            _interrupt_in_step(2, patch)
            with pytest.raises(Interrupted):
                train(parts)
        train(parts)
        assert sha256_file(parts.weights_file) == sha256_file(whole.weights_file)

    def _run(self, task: str, data: Path, out: Path) -> Run:
        """Plan three steps of the small network with the smoke recipe."""
        values = {f"options.{name}": value for name, value in self.options.items()}
        values |= {"iterations": 3, "batch_size": 2, "image_size": self.size}
        return plan(
            Request(
                method=str(self.method.folder),
                backbone=self.backbone,
                task=task,
                variant=self._variant,
                data=data,
                preset="smoke",
                assignments=[f"{name}={value}" for name, value in values.items()],
                out=out,
                device="cpu",
                workers=0,
            )
        )


def _interrupt_in_step(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send SIGTERM to this process during the ``number``-th training step."""
    real, done = Trainer._step, 0

    def step(self: Trainer, batch: Batch, ids: list[str]) -> dict[str, Tensor]:
        nonlocal done
        done += 1
        if done == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, batch, ids)

    monkeypatch.setattr(Trainer, "_step", step)
