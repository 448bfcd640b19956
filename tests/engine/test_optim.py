from __future__ import annotations

import pytest
import torch
from torch import nn

from avsbench_harness.data.epochs import Epochs
from avsbench_harness.engine import optim
from avsbench_harness.nn.model import ParamGroup
from avsbench_harness.recipe.schema import BackboneRecipe, OptimizerRecipe, Recipe, ScheduleRecipe


def factors(schedule: ScheduleRecipe, total: int = 10, per_epoch: int = 2) -> list[float]:
    return [optim.lr_factor(schedule, step, total, step // per_epoch) for step in range(total)]


def test_schedules() -> None:
    assert factors(ScheduleRecipe()) == [1.0] * 10
    step = factors(ScheduleRecipe(name="step", milestones=[1, 4], gamma=0.5))
    assert step == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]
    poly = factors(ScheduleRecipe(name="poly", power=1.0))
    assert poly == pytest.approx([1 - step / 10 for step in range(10)])
    cosine = factors(ScheduleRecipe(name="cosine", warmup_steps=4))
    assert cosine[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert cosine[5:] == sorted(cosine[5:], reverse=True)
    assert 0 < cosine[-1] < 0.1


def test_learning_rates_of_parameter_groups() -> None:
    fast, slow = nn.Linear(1, 1), nn.Linear(1, 1)
    groups = [
        ParamGroup("head", list(fast.parameters())),
        ParamGroup("backbone", list(slow.parameters()), lr_scale=0.1, weight_decay=0.0),
        ParamGroup("nothing", []),
    ]
    optimizer = optim.build_optimizer(groups, OptimizerRecipe(lr=1.0, weight_decay=0.3))
    optim.set_lr(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, pytest.approx(0.05)]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]


@pytest.mark.parametrize(("name", "kind"), [("sgd", "SGD"), ("adam", "Adam"), ("adamw", "AdamW")])
def test_optimizers_by_name(name: str, kind: str) -> None:
    layer = nn.Linear(1, 1)
    group = ParamGroup("all", list(layer.parameters()))
    assert type(optim.build_optimizer([group], OptimizerRecipe(name=name))).__name__ == kind


def test_frozen_parameters_are_not_decayed() -> None:
    model = nn.ModuleDict(
        {"backbone": nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), "head": nn.Linear(2, 1)}
    )
    backbone = model["backbone"]
    recipe = BackboneRecipe(freeze_epochs=1)
    optimizer = optim.build_optimizer(
        [ParamGroup("all", list(model.parameters()))], OptimizerRecipe(lr=0.1, weight_decay=0.5)
    )
    before = [parameter.detach().clone() for parameter in backbone.parameters()]

    def step(epoch: int) -> None:
        optim.set_training(model, backbone, recipe, epoch)
        optimizer.zero_grad(set_to_none=True)
        model["head"](
            backbone(torch.randn(4, 2, generator=torch.Generator().manual_seed(epoch)))
        ).sum().backward()
        optimizer.step()

    step(0)
    assert all(torch.equal(a, b) for a, b in zip(before, backbone.parameters(), strict=True))
    assert backbone[1].training  # the published code freezes parameters, not batch norm's statistics
    step(1)
    assert not any(torch.equal(a, b) for a, b in zip(before, backbone.parameters(), strict=True))
    optim.set_training(model, backbone, BackboneRecipe(freeze_epochs="all", freeze_norm=True), 99)
    assert not backbone[1].training
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_length_includes_the_last_batch() -> None:
    assert optim.length(Recipe(epochs=3), Epochs(9, 4)) == 9
    assert optim.length(Recipe(epochs=3), Epochs(9, 4, "drop")) == 6
    assert optim.length(Recipe(iterations=5), Epochs(9, 4)) == 5
