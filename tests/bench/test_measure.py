from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from avsbench_harness.bench import measure as module
from avsbench_harness.bench.measure import measure, waiting_share
from avsbench_harness.data.batch import Batch
from avsbench_harness.data.random_batch import random_batch
from avsbench_harness.method import from_folder
from avsbench_harness.nn.model import Model
from avsbench_harness.recipe.schema import Recipe
from avsbench_harness.tasks import S4


def recipe(**changes) -> Recipe:
    values = {"optimizer": {"name": "sgd", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}, "epochs": 1}
    return Recipe.parse({**values, **changes}, "the test")


def network(tiny: str) -> Model:
    torch.manual_seed(0)
    return from_folder(Path(tiny)).build(S4, "r50", variant="released", width=4)


def test_multiples_are_independent_of_the_drift_of_the_machine(tiny: str, monkeypatch) -> None:
    """Every call takes longer than the one before; the model takes three times the backbone's time."""
    slower = 1.0

    def seconds(call, device) -> tuple[float, float]:
        nonlocal slower
        before = model.calls
        call()
        slower *= 1.01
        busy = (3.0 if model.calls > before else 1.0) * slower
        return busy / 2, busy

    class Counted(type(network(tiny))):
        calls = 0

        def forward(self, batch: Batch):
            self.calls += 1
            return super().forward(batch)

    model = network(tiny)
    model.__class__ = Counted
    monkeypatch.setattr(module, "_seconds", seconds)
    found = measure(model, nn.Conv2d(3, 4, 3), recipe(), random_batch(S4, side=16), repeats=3)
    for multiples, timing in (
        (found.forward_multiples, found.forward),
        (found.step_multiples, found.step),
    ):
        assert multiples == pytest.approx([3 / 1.01] * 3)
        assert timing.elapsed == pytest.approx([busy / 2 for busy in timing.busy])
        assert timing.busy[2] > timing.busy[0]
    assert found.of_forward == pytest.approx(found.of_step)


def test_precision_and_frozen_parameters_follow_the_recipe(tiny: str) -> None:
    model = network(tiny)
    seen: set[torch.dtype] = set()
    model.head.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    bare = nn.Conv2d(3, 4, 3)
    bare.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    before = {name: value.clone() for name, value in model.named_parameters()}
    settings = recipe(precision="bf16", backbone={"freeze_epochs": "all"})
    found = measure(model, bare, settings, random_batch(S4, side=16), repeats=2)
    assert seen == {torch.bfloat16}
    assert all(len(timing.busy) == 2 for timing in (found.forward, found.step, found.bare_step))
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name]) == name.startswith("backbone."), name


def test_waiting_is_the_fraction_of_time_in_the_loader() -> None:
    def batches() -> Iterator[Batch]:
        for wait in (0.5, 0.03, 0.03, 0.03):
            time.sleep(wait)
            yield random_batch(S4, side=4)

    share = waiting_share(batches(), lambda batch: time.sleep(0.01), "cpu", warm_up=1)
    assert 0.6 < share < 0.85  # 0.75, and what sleeping takes longer
    with pytest.raises(ValueError, match="more batches than 4"):
        waiting_share(batches(), lambda batch: None, "cpu", warm_up=4)
