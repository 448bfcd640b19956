"""A small AVSegFormer as in the paper, and random inputs."""

from __future__ import annotations

from typing import Any

import torch
from avsbench_methods.avsegformer import AVSegFormer
from avsbench_methods.avsegformer.model import AVSegFormerModel

from avsbench_harness.tasks import S4, Task

SMALL: dict[str, Any] = {
    "queries": 6, "dim": 32, "encoder_layers": 1, "decoder_layers": 2, "ffn_dim": 32, "mask_mlp_dim": 32,
}  # fmt: skip


def build(task: Task = S4, variant: str = "paper", **options: Any) -> AVSegFormerModel:
    torch.manual_seed(0)
    model = AVSegFormer().build(task, "resnet10t", variant=variant, **{**SMALL, **options})
    assert isinstance(model, AVSegFormerModel)
    return model.eval()
