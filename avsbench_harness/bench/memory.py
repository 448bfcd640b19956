"""Peak memory of training."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from avsbench_harness.bench.measure import system_step
from avsbench_harness.data.audio.logmel import BANDS, EXAMPLE_FRAMES
from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.data.batch import Batch
from avsbench_harness.data.random_batch import random_batch
from avsbench_harness.engine.out_of_memory import free_cached
from avsbench_harness.engine.progress import peak_rss_gib
from avsbench_harness.engine.run import Run, RunSpec
from avsbench_harness.errors import AvsbError
from avsbench_harness.method import Loops, get_method


def run_batch(run: Run, clips: int | None = None) -> Batch:
    """A batch of noise in the shape of a run's training batches, on its device.

    Args:
        run: the run.
        clips: number of clips; ``None``: the recipe's batch size.
    """
    recipe = run.recipe
    batch = random_batch(run.task, clips or recipe.batch_size, recipe.frames, recipe.image_size)
    if run.spec.audio.trained:  # by an encoder that takes log-mel examples
        batch = batch.with_audio(torch.zeros(*batch.audio.shape[:2], 1, EXAMPLE_FRAMES, BANDS))
    return batch.to(run.device)


def training_peak(run: Run, method: str) -> float:
    """Peak memory of a run's training in GiB: weights, gradients, optimiser state and activations.

    Measured over two steps on noise, without DataLoader workers. On CUDA the peak of the allocator; on the
    CPU the growth of the resident memory of a fresh process, 0 where the system does not report it.

    Args:
        run: network, recipe and device.
        method: name, alias or folder of the run's method, for the fresh process.

    Raises:
        torch.OutOfMemoryError: it does not fit on the CUDA device.
        AvsbError: the fresh process was killed, or its allocation failed.
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
    """Measure in a fresh process: this one would reuse memory that it has freed before."""
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
    """Growth of this process's peak resident memory over two training steps, GiB."""
    run = Run(spec=spec, method=get_method(method), dataset=dataset, out=Path(), loops=loops)
    _load_libraries()
    before = peak_rss_gib()
    _train_twice(run)
    return peak_rss_gib() - before


def _load_libraries() -> None:
    """Make a tiny training step, so that libraries that torch loads on first use are not counted."""
    layer = torch.nn.Conv2d(3, 8, 3)
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    layer(torch.zeros(1, 3, 8, 8)).sum().backward()
    optimizer.step()


def _train_twice(run: Run) -> None:
    """Make two steps: only the second has both optimiser state and activations."""
    step = system_step(run)
    batch = run_batch(run)
    for _ in range(2):
        step(batch)
