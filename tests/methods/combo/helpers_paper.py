"""A small COMBO as in the paper, and random inputs."""

from __future__ import annotations

from typing import Any

import torch
from avsbench_methods.combo import Combo
from avsbench_methods.combo.model import ComboModel

from avsbench_harness.data.batch import Batch
from avsbench_harness.tasks import S4, Task

SMALL: dict[str, Any] = {
    "queries": 6, "dim": 64, "encoder_layers": 1, "encoder_ffn_dim": 64, "decoder_layers": 3, "ffn_dim": 64,
    "audio_mlp_dim": 32, "loss_points": 64,
}  # fmt: skip


VARIANTS = Combo.variants


def build(task: Task = S4, variant: str = "paper", **options: Any) -> ComboModel:
    torch.manual_seed(0)
    model = Combo().build(task, "resnet10t", variant=variant, **{**SMALL, **options})
    assert isinstance(model, ComboModel)
    return model.eval()


def batch(clips: int = 1, frames: int = 2, side: int = 64, **values: Any) -> Batch:
    draw = torch.Generator().manual_seed(1)
    shape = (clips, frames, 3, side, side)
    masks = torch.zeros(clips, frames, side, side, dtype=torch.int64)
    masks[..., : side // 2] = 1
    default = {
        "images": torch.randn(shape, generator=draw),
        "maskige": torch.randn(shape, generator=draw),
        "audio": torch.rand(clips, frames, 128, generator=draw),
        "masks": masks,
    }
    return Batch(**{**default, **values})
