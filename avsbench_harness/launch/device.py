"""The device of a run, and the number of its DataLoader worker processes."""

from __future__ import annotations

import os

from avsbench_harness.distributed import local_device, world_size
from avsbench_harness.errors import UsageError, unknown
from avsbench_harness.recipe.schema import Recipe


def choose_device(asked: str | None) -> str:
    """Check the requested device; defaults to CUDA if available."""
    if asked == "cpu":
        return asked
    import torch

    if asked is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise unknown("device", asked, ("cpu", "cuda")) from None
    here = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= here:
        raise UsageError(f"There is no device {asked} here ({here} CUDA devices); pass --device cpu.")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"Runs need a device cpu or cuda, not {asked}.")
    return asked


def run_device(asked: str | None, recipe: Recipe) -> str:
    """The device of this process, checked for what the recipe needs."""
    device = local_device(choose_device(asked))
    if recipe.compile:
        from avsbench_harness.engine.acceleration import check_compiler

        check_compiler(device)
    return device


def default_workers() -> int:
    """The default number of DataLoader workers: 0 on a small machine, where training needs the cores."""
    cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
    return 0 if cores <= 2 else min(8, cores // 2)
