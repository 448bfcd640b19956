"""A small CATR as in the paper, and random inputs."""

from __future__ import annotations

from typing import Any

import torch
from avsbench_methods.catr import CATR
from avsbench_methods.catr.model import CATRModel
from avsbench_methods.catr.options import PAPER, Options
from torch import Tensor, nn

from avsbench_harness.tasks import MS3, Task

SMALL: dict[str, Any] = {"queries": 6, "dim": 64, "ffn_dim": 64}


def options(**changes: Any) -> Options:
    return Options(**{**PAPER, **SMALL, **changes})


def build(task: Task = MS3, **changes: Any) -> CATRModel:
    torch.manual_seed(0)
    small = {"dim": SMALL["dim"]} if changes.get("decoding") == "direct" else dict(SMALL)
    if changes.get("query_source") == "video":
        del small["queries"]
    model = CATR().build(task, "resnet10t", variant="paper", **{**small, **changes})
    assert isinstance(model, CATRModel)
    return model.eval()


def same(found: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def reference_attention(module: nn.Module, *tokens: Tensor) -> Tensor:
    """PyTorch's own multi-head attention with the same weights."""
    dim = tokens[0].shape[-1]
    other = nn.MultiheadAttention(dim, 8, batch_first=True)
    state = {name.replace("in_proj.", "in_proj_"): value for name, value in module.state_dict().items()}
    other.load_state_dict(state)
    found: Tensor = other(*tokens, need_weights=False)[0]
    return found
