"""The base class of networks."""

from __future__ import annotations

import pytest
import torch

import avsbench_harness as avsb
from avsbench_harness.errors import UsageError


def test_the_zero_loss_has_a_zero_gradient_for_every_parameter(tiny: str) -> None:
    model = avsb.build(tiny, task="s4", backbone="r50", width=4)
    loss = model.zero_loss()
    loss.backward()
    assert loss == 0
    assert all(not parameter.grad.any() for parameter in model.parameters())


def test_published_weights_exist_for_some_backbones_only(tiny: str) -> None:
    model = avsb.build(tiny, task="s4", backbone="r50", width=4)
    with pytest.raises(
        UsageError, match="Tiny has no published weights with the backbone r18, only with r50"
    ):
        model.load_published({}, str, backbone="r18", backbones=("r50",))
    state = {f"net.{name}": torch.ones_like(value) for name, value in model.state_dict().items()}
    model.load_published(state, lambda name: name.removeprefix("net."), backbone="r50", backbones=("r50",))
    assert all((value == 1).all() for value in model.state_dict().values())
    with pytest.raises(UsageError, match="does not fit tiny for s4 with r50"):
        model.load_published(state, str, backbone="r50", backbones=("r50",))


def test_methods_without_published_weights_refuse_any(tiny: str) -> None:
    with pytest.raises(UsageError, match="TinyModel has no published weights to load"):
        avsb.build(tiny, task="s4", backbone="r50").load_upstream({})
