"""A small COMBO as released, and random inputs."""

from __future__ import annotations

import functools
from typing import Any

import torch
from avsbench_methods.combo import Combo
from avsbench_methods.combo.model import ComboModel

from avsbench_harness.data.batch import Batch
from avsbench_harness.tasks import S4, TASKS, Task
from avsbench_harness.testing.seeded import seeded_input

SMALL: dict[str, Any] = {
    "queries": 6,
    "dim": 64,
    "encoder_layers": 1,
    "encoder_ffn_dim": 64,
    "decoder_layers": 3,
    "ffn_dim": 64,
    "audio_mlp_dim": 32,
    "loss_points": 64,
}


def build(task: Task = S4, backbone: str = "resnet10t", **options: Any) -> ComboModel:
    torch.manual_seed(0)
    model = Combo().build(task, backbone, variant="released", **{**SMALL, **options})
    assert isinstance(model, ComboModel)
    return model.eval()


def batch(clips: int = 2, frames: int = 3, size: tuple[int, int] = (64, 64), **fields: Any) -> Batch:
    values = {
        "images": seeded_input(1, "images", (clips, frames, 3, *size)),
        "maskige": seeded_input(1, "maskige", (clips, frames, 3, *size)),
        "audio": seeded_input(1, "audio", (clips, frames, 128)),
    }
    return Batch(**{**values, **fields})


@functools.cache
def without_memory(backbone: str, task: str) -> ComboModel:
    """Return the released network on the meta device."""
    with torch.device("meta"):
        return Combo().build(TASKS[task], backbone, variant="released")  # type: ignore[return-value]
