"""Networks without memory for their tensors: names and shapes only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def on_meta(build: Callable[[], Network]) -> Network:
    """What ``build`` makes, with its tensors on torch's meta device; the random generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return build()
        except (NotImplementedError, RuntimeError):  # some networks read numbers as they are built
            return build().to("meta")
