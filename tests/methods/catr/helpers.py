"""A small CATR as released, and random inputs."""

from __future__ import annotations

from typing import Any

import torch
from avsbench_methods.catr import CATR
from avsbench_methods.catr.model import CATRModel

from avsbench_harness.tasks import S4, Task

SMALL: dict[str, Any] = {"queries": 6, "dim": 64, "kernel_channels": 16, "decoder_layers": 2, "ffn_dim": 64}


def build(task: Task = S4, backbone: str = "resnet10t", **options: Any) -> CATRModel:
    torch.manual_seed(0)
    model = CATR().build(task, backbone, variant="released", **{**SMALL, **options})
    assert isinstance(model, CATRModel)
    return model.eval()


def same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
