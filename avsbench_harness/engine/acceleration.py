"""What a recipe changes about how a system computes, not about what: layout, recomputation, compilation."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from avsbench_harness.engine.system import System
from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.schema import Recipe


def check_compiler(device: str) -> None:
    """Refuse ``compile`` where there is nothing that could compile.

    Raises:
        UsageError: neither a C++ compiler (CPU) nor Triton (CUDA) is there.
    """
    if device.startswith("cuda"):
        if find_spec("triton") is None:
            raise UsageError(
                "The recipe's compile needs Triton on CUDA, which is not installed; leave it out."
            )
        return
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    wanted = os.environ.get("CXX", usual)
    if shutil.which(wanted) is None:
        raise UsageError(
            f"The recipe's compile needs a C++ compiler, and {wanted} is not there; install it, name another "
            "by the environment variable CXX, or leave compile out."
        )


def speed_up(system: System, recipe: Recipe, compiler: str = "inductor") -> System:
    """The system, which is on its device already, as the recipe wants it to compute.

    Args:
        system: changed in place.
        recipe: says what to do.
        compiler: a backend of ``torch.compile``; one that generates no code makes a test quick.
    """
    if recipe.channels_last:
        system.to(memory_format=torch.channels_last)
    if recipe.activation_checkpointing:
        _checkpoint_activations(system.model.backbone)
    if recipe.compile:
        # The compiler's own random numbers would be others than those of a run that is not compiled.
        options = {"options": {"fallback_random": True}} if compiler == "inductor" else {}
        system.compile(backend=compiler, **options)
    return system


def _checkpoint_activations(backbone: nn.Module) -> None:
    """Keep a backbone's activations at the borders of its stages only, and compute the others again.

    A backbone that does not come from timm is computed again as a whole.
    """
    stages = [module for module in backbone.modules() if hasattr(module, "set_grad_checkpointing")]
    for module in stages:
        module.set_grad_checkpointing(True)  # type: ignore[operator]
    if not stages:
        backbone.forward = partial(checkpoint, backbone.forward, use_reentrant=False)


@contextmanager
def recomputing(backbone: nn.Module, recipe: Recipe) -> Iterator[None]:
    """Around a backward pass: batch norms that see a batch again do not count it again."""
    norms = [module for module in backbone.modules() if isinstance(module, _BatchNorm)]
    if not recipe.activation_checkpointing or not norms:
        yield
        return
    momenta = [norm.momentum for norm in norms]
    counts = [norm.num_batches_tracked for norm in norms]
    before = [None if count is None else count.clone() for count in counts]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count, old in zip(norms, momenta, counts, before, strict=True):
            norm.momentum = momentum
            if count is not None and old is not None:
                count.copy_(old)
