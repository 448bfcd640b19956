"""A small AQFormer, and random inputs."""

from __future__ import annotations

from typing import Any

import torch
from avsbench_methods.aqformer import AQFormer
from avsbench_methods.aqformer.model import AQFormerModel
from avsbench_methods.aqformer.options import Options
from torch import Tensor, nn

from avsbench_harness.data.batch import Batch
from avsbench_harness.nn.attention import Attention
from avsbench_harness.tasks import MS3, Task
from avsbench_harness.testing.seeded import seeded_input, seeded_state

SMALL: dict[str, Any] = {
    "dim": 64, "heads": 4, "ffn_dim": 64, "encoder_layers": 1, "encoder_ffn_dim": 64, "stages": 2,
}  # fmt: skip


#: Rows of the paper's Table 2 and what they change; the card lists the same.
TABLE_2: dict[str, dict[str, Any]] = {
    "2a Vanilla Object Query": {"queries": "vanilla", "abti": [], "similarity_loss": False},
    "2a Audio Query†": {"query_frames": "own", "abti": [], "similarity_loss": False},
    "2a Audio Query": {"abti": [], "similarity_loss": False},
    "2b basic": {"abti": [], "similarity_loss": False},
    "2b + ABTI": {"similarity_loss": False},
    "2b + AVSim": {"abti": []},
    "2b both": {},
    "2c -": {"abti": []},
    "2c 1,2,3": {"abti": [1, 2, 3]},
    "2c 4": {"abti": [4]},
    "2c 1,2,3,4": {"abti": [1, 2, 3, 4]},
    "2d 1": {"stages": 1},
    "2d 2": {"stages": 2},
    "2d 3": {"stages": 3},
}


def options(task: Task = MS3, **changes: Any) -> Options:
    return Options.of({**SMALL, **changes}, task, "paper")


def build(task: Task = MS3, **changes: Any) -> AQFormerModel:
    torch.manual_seed(0)
    model = AQFormer().build(task, "resnet10t", variant="paper", **{**SMALL, **changes})
    assert isinstance(model, AQFormerModel)
    return model.eval()


def drawn(module: nn.Module, seed: int = 2) -> Any:
    """Return the module with seeded weights and biases."""
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    module.load_state_dict(seeded_state(seed, shapes))
    return module.eval()


def batch(
    clips: int = 2, frames: int = 3, size: tuple[int, int] = (64, 64), seed: int = 1, **fields: Any
) -> Batch:
    images = seeded_input(seed, "images", (clips, frames, 3, *size))
    return Batch(images, seeded_input(seed, "audio", (clips, frames, 128)), **fields)


def reference_attention(ours: Attention, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """PyTorch's multi-head attention with the same weights, for one clip: (Q,dim), (S,dim), (S,dim)."""
    theirs = nn.MultiheadAttention(query.shape[-1], ours.heads)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.in_proj.weight,
            "in_proj_bias": ours.in_proj.bias,
            "out_proj.weight": ours.out_proj.weight,
            "out_proj.bias": ours.out_proj.bias,
        }
    )
    return theirs(query, keys, values, need_weights=False)[0]
