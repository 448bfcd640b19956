from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from avsbench_harness.data.batch import Batch
from avsbench_harness.data.random_batch import random_batch
from avsbench_harness.engine.step import Stepper
from avsbench_harness.engine.system import System
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


@pytest.mark.parametrize(("precision", "error"), [("fp32", 1e-4), ("fp16", 0.05)])
@pytest.mark.parametrize("clip_norm", [None, 1e-3])
def test_a_step_is_backward_clipping_and_optimiser(
    tiny: str, clip_norm: float | None, precision: str, error: float
) -> None:
    ours, theirs = network(tiny).eval(), network(tiny).eval()
    batch, settings = random_batch(S4, side=16), recipe(clip_norm=clip_norm, precision=precision)
    Stepper(System(ours, None), settings, "cpu").step(batch, 1, number=0, lr_factor=1.0)
    torch.stack(list(theirs.losses(batch).values())).sum().backward()
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(theirs.parameters(), clip_norm)
    untouched = network(tiny).state_dict()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter -= parameter.grad
            moved = (ours.get_parameter(name) - untouched[name]).norm()
            assert (ours.get_parameter(name) - parameter).norm() <= error * moved + 5e-7, name
            assert moved > 1e-6, name


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("alone", [False, True])
def test_parameters_with_one_gradient_are_clipped_once(tiny: str, accumulate: int, alone: bool) -> None:
    """Autograd makes the gradients of the terms of a stack views of one tensor."""
    model = network(tiny).eval()
    model.offsets = nn.ParameterList(nn.Parameter(torch.zeros(2)) for _ in range(3))
    slope = torch.tensor([3.0, 4.0])

    def losses(batch: Batch) -> dict[str, torch.Tensor]:
        return {"bce": (torch.stack(list(model.offsets)).sum(dim=0) * slope).sum()}

    model.losses = losses
    settings = recipe(clip_norm=1.0, accumulate=accumulate)
    stepper = Stepper(System(model, None), settings, "cpu")
    (stepper.standalone() if alone else stepper).step(
        random_batch(S4, clips=2, side=16), 2, number=0, lr_factor=1.0
    )
    wanted = -slope / (5 * 3**0.5)  # the norm of three gradients of length 5 becomes 1
    for offset in model.offsets:
        torch.testing.assert_close(offset.detach(), wanted)


def test_a_standalone_step_calls_no_gradient_hooks(tiny: str) -> None:
    model, settings = network(tiny), recipe()
    called = []
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(called.append)
    stepper = Stepper(System(model, None), settings, "cpu").standalone()
    stepper.step(random_batch(S4, side=16), 1, number=0, lr_factor=1.0)
    assert not called
    assert all(parameter.grad is not None for parameter in model.parameters())
