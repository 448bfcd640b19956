"""Memory format, activation checkpointing and compilation: recipe keys that do not change the model."""

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
    """Check that ``compile`` has its compiler: C++ on the CPU, Triton on CUDA.

    Raises:
        UsageError: the compiler is missing.
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
            f"The recipe's compile needs a C++ compiler, and {wanted} is missing; install it, set the "
            "environment variable CXX to another, or leave compile out."
        )


def accelerate(system: System, recipe: Recipe, compiler: str = "inductor") -> System:
    """Apply a recipe's memory format, activation checkpointing and compilation.

    Args:
        system: on its device; changed in place.
        recipe: the recipe.
        compiler: a backend of ``torch.compile``; tests use one that generates no code.
    """
    if recipe.channels_last:
        system.to(memory_format=torch.channels_last)
    if recipe.activation_checkpointing:
        _checkpoint_activations(system.model.backbone)
    if recipe.compile:
        # The compiler's own random numbers differ from those of a run that is not compiled.
        options = {"options": {"fallback_random": True}} if compiler == "inductor" else {}
        system.compile(backend=compiler, **options)
    return system


def _checkpoint_activations(backbone: nn.Module) -> None:
    """Keep a backbone's activations only between its stages, and recompute the others.

    A backbone that is not from timm is recomputed as a whole.
    """
    stages = [module for module in backbone.modules() if hasattr(module, "set_grad_checkpointing")]
    for module in stages:
        module.set_grad_checkpointing(True)  # type: ignore[operator]
    if not stages:
        backbone.forward = partial(checkpoint, backbone.forward, use_reentrant=False)


@contextmanager
def recomputing(backbone: nn.Module, recipe: Recipe) -> Iterator[None]:
    """During a backward pass: recomputed batch norms do not update their running statistics."""
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
