"""Modules on the meta device: the same names and shapes, without initialisation."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from avsbench_harness.weights.meta import on_meta


class Recorder(TorchDispatchMode):
    """Records the names of the operators."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


class Filled(nn.Module):
    """Initialised in the ways that networks use."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.kaiming_normal_(self.linear.weight)
        nn.init.constant_(self.linear.bias, 2.0)
        self.linear.weight.data.normal_(0, 1).mul_(2)


def test_nothing_is_initialised() -> None:
    with Recorder() as recorder:
        filled = on_meta(Filled)
    assert recorder.names & {"uniform_", "normal_", "erfinv_", "mul_", "add_", "fill_", "zero_"} == set()
    assert all(tensor.is_meta for tensor in filled.state_dict().values())
    assert filled.linear.weight.requires_grad


def test_names_and_shapes_are_those_of_a_real_module() -> None:
    def build() -> nn.Module:
        return timm.create_model("swin_tiny_patch4_window7_224")

    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in on_meta(build).state_dict().items()}
    assert torch.equal(torch.rand(1), expected)  # the random generator has not moved
    assert shapes == {name: (tensor.shape, tensor.dtype) for name, tensor in build().state_dict().items()}
