"""A small TPAVI as released, and random inputs."""

from __future__ import annotations

import functools
from typing import Any

import torch
from avsbench_methods.tpavi import TPAVI
from avsbench_methods.tpavi.model import TPAVIModel
from torch import nn

from avsbench_harness.tasks import S4, TASKS, Task


def build(task: Task = S4, *, gain: bool = True, **options: Any) -> TPAVIModel:
    """Return a small network; with ``gain`` the interaction has a non-zero gain, as after training."""
    torch.manual_seed(0)
    model = TPAVI().build(task, "resnet10t", variant="released", **{"dim": 16, **options})
    assert isinstance(model, TPAVIModel)
    for interaction in model.interactions:
        nn.init.constant_(interaction.out_norm.weight, 1000.0 if gain else 0.0)
    return model.eval()


@functools.cache
def without_memory(backbone: str, task: str = "s4") -> TPAVIModel:
    """Return the released network on the meta device."""
    with torch.device("meta"):
        return TPAVI().build(TASKS[task], backbone, variant="released")  # type: ignore[return-value]
