"""A small AVSegFormer as released, and random inputs."""

from __future__ import annotations

import functools
from typing import Any

import torch
from avsbench_methods.avsegformer import AVSegFormer
from avsbench_methods.avsegformer.model import AVSegFormerModel

from avsbench_harness.tasks import S4, Task

SMALL: dict[str, Any] = {
    "queries": 6,
    "dim": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "generator_layers": 2,
    "ffn_dim": 64,
    "mask_mlp_dim": 64,
    "mask_channels": 16,
}


def build(task: Task = S4, backbone: str = "resnet18", **options: Any) -> AVSegFormerModel:
    torch.manual_seed(0)
    model = AVSegFormer().build(task, backbone, variant="released", **{**SMALL, **options})
    assert isinstance(model, AVSegFormerModel)
    return model.eval()


@functools.cache
def without_memory(backbone: str, variant: str = "released") -> AVSegFormerModel:
    """Return a network of the published size on the meta device."""
    with torch.device("meta"):
        return AVSegFormer().build(S4, backbone, variant=variant)  # type: ignore[return-value]
