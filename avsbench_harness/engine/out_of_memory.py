"""Training that runs out of memory: find the largest batch that fits, and report it."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable

import torch

from avsbench_harness.data.batch import Batch
from avsbench_harness.distributed import world_size
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.step import Stepper
from avsbench_harness.errors import AvsbError


def out_of_memory(error: torch.OutOfMemoryError, run: Run, stepper: Stepper, batch: Batch) -> AvsbError:
    """The error for a batch that does not fit into memory; it names the largest batch that does.

    The probe steps on parts of a micro-batch of this process: weights and optimiser are unusable afterwards.

    Args:
        error: as raised; the tensors that its frames hold are released.
        run: the run.
        stepper: the run's.
        batch: this process's share, on the device.
    """
    traceback.clear_frames(error.__traceback__)
    free_cached()
    alone = stepper.standalone()
    share, accumulate = batch.shape[0], run.recipe.accumulate

    def step(count: int) -> None:
        alone.step(batch.select(slice(count)), count, number=0, lr_factor=1.0)

    fits = largest_batch(step, -(-share // accumulate))
    return does_not_fit(run, run.recipe.batch_size, fits * accumulate * world_size(), "--set batch_size=")


def largest_batch(step: Callable[[int], None], clips: int) -> int:
    """The largest number of clips on which a step does not run out of memory, by doubling and bisection.

    Args:
        step: a training step on so many clips; raises ``torch.OutOfMemoryError`` where they do not fit.
        clips: a number that does not fit.

    Returns:
        less than ``clips``; 0 if not even one fits.
    """
    fits, fails = 0, clips
    while fails - fits > 1:
        tried = min(max(1, 2 * fits), (fits + fails) // 2)
        try:
            step(tried)
            fits = tried
        except torch.OutOfMemoryError as error:
            traceback.clear_frames(error.__traceback__)
            fails = tried
            free_cached()
    return fits


def does_not_fit(run: Run, clips: int, fits: int, option: str) -> AvsbError:
    """The error for a batch that does not fit.

    Args:
        run: the run.
        clips: number of clips of the batch.
        fits: the largest batch that fits, or 0.
        option: the command-line option that sets the number of clips.
    """
    recipe = run.recipe
    found = (
        f"a probe found that {fits} fit: pass {option}{fits}"
        if fits
        else "not even one fits: lower the recipe's image_size"
    )
    lower = "" if recipe.precision != "fp32" else ", or train in precision bf16"
    return AvsbError(
        f"Training ran out of memory on {run.device} with a batch of {clips} clips of "
        f"{recipe.frames or run.task.frames} frames at {recipe.image_size} pixels in {recipe.precision}; "
        f"{found}{lower}."
    )


def free_cached() -> None:
    """Free unused tensors and the CUDA allocator's cache."""
    gc.collect()
    torch.cuda.empty_cache()
