"""How much memory training takes, and how many clips fit where a batch does not."""

from __future__ import annotations

import gc
import multiprocessing
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch
from torch import Tensor

from avsbench_harness.bench.measure import random_batch, system_step, training_step
from avsbench_harness.data.audio.logmel import BANDS, EXAMPLE_FRAMES
from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.data.batch import Batch
from avsbench_harness.distributed import world_size
from avsbench_harness.engine.progress import peak_rss_gib
from avsbench_harness.engine.run import Run, RunSpec
from avsbench_harness.errors import AvsbError
from avsbench_harness.method import Loops, get_method


def run_batch(run: Run, clips: int | None = None) -> Batch:
    """A batch of noise as a run trains on, on its device; of the recipe's number of clips or another."""
    recipe = run.recipe
    batch = random_batch(run.task, clips or recipe.batch_size, recipe.frames, recipe.image_size)
    if run.spec.audio.trained:  # by an encoder that takes log-mel examples
        batch = batch.with_audio(torch.zeros(*batch.audio.shape[:2], 1, EXAMPLE_FRAMES, BANDS))
    return batch.to(run.device)


def training_peak(run: Run, method: str) -> float:
    """Peak memory in GiB that a run's training takes: weights, gradients, optimiser and activations.

    Of two steps on noise, without the data's own processes. On CUDA what the allocator handed out at most; on
    the CPU how far the resident memory of a fresh process grows, 0 where the system does not tell.

    Args:
        run: which network, recipe and device.
        method: name, alias or folder of the run's method, by which the other process finds it.

    Raises:
        torch.OutOfMemoryError: it does not fit on the CUDA device.
        AvsbError: the other process was killed, or refused the memory.
    """
    return _cuda_peak(run) if run.device.startswith("cuda") else _cpu_peak(run, method)


def _cuda_peak(run: Run) -> float:
    free_cached()
    torch.cuda.init()
    torch.cuda.reset_peak_memory_stats(run.device)
    before = torch.cuda.memory_allocated(run.device)
    try:
        _train_twice(run)
        return (torch.cuda.max_memory_allocated(run.device) - before) / 2**30
    finally:
        free_cached()


def _cpu_peak(run: Run, method: str) -> float:
    """In another process: what this one freed before would be used again, and not show."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_growth, method, run.spec, run.dataset, run.loops).result()
        except RuntimeError as error:
            killed = isinstance(error, BrokenProcessPool)
            if not killed and "DefaultCPUAllocator" not in str(error):
                raise
            raise AvsbError(
                f"Training on a batch of {run.recipe.batch_size} clips takes more memory than there is; pass "
                "a smaller --batch."
            ) from None


def _growth(method: str, spec: RunSpec, dataset: Dataset, loops: Loops) -> float:
    """Growth of this process's peak of resident memory over two training steps, GiB."""
    run = Run(spec=spec, method=get_method(method), dataset=dataset, out=Path(), loops=loops)
    _load_libraries()
    before = peak_rss_gib()
    _train_twice(run)
    return peak_rss_gib() - before


def _load_libraries() -> None:
    """One step of next to nothing, so that what torch loads on first use is not counted as the network's."""
    layer = torch.nn.Conv2d(3, 8, 3)
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    layer(torch.zeros(1, 3, 8, 8)).sum().backward()
    optimizer.step()


def _train_twice(run: Run) -> None:
    """Two steps: the second one has the optimiser's state beside the activations."""
    step = system_step(run)
    batch = run_batch(run)
    for _ in range(2):
        step(batch)


def largest_batch(step: Callable[[int], None], clips: int) -> int:
    """The largest number of clips on which a step does not run out of memory, by doubling and bisection.

    Args:
        step: with so many clips; raises ``torch.OutOfMemoryError`` where they are too many.
        clips: known to be too many.

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


def out_of_memory(
    error: torch.OutOfMemoryError,
    run: Run,
    losses: Callable[[Batch], dict[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    batch: Batch,
) -> AvsbError:
    """The error for a batch on which training runs out of memory; it names the largest part of it that fits.

    What a process takes at a time is a part of the batch: its share, in micro-batches. The search trains:
    weights and optimiser are of no use after it.

    Args:
        error: what was raised; the tensors that its frames hold are let go.
        run: what was trained, and where.
        losses: of the system.
        optimizer: over its parameters.
        batch: this process's share, on the device.
    """
    traceback.clear_frames(error.__traceback__)
    free_cached()
    step = training_step(losses, optimizer, run.recipe, run.device)
    share, accumulate = batch.shape[0], run.recipe.accumulate
    fits = largest_batch(lambda count: step(batch.select(slice(count))), -(-share // accumulate))
    return does_not_fit(run, run.recipe.batch_size, fits * accumulate * world_size(), "--set batch_size=")


def does_not_fit(run: Run, clips: int, fits: int, option: str) -> AvsbError:
    """The error for a batch that does not fit.

    Args:
        run: what was trained, and where.
        clips: of the batch.
        fits: the largest batch that fits, or 0.
        option: how the user passes another number of clips.
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
    """Give back what no tensor uses any more."""
    gc.collect()
    torch.cuda.empty_cache()
