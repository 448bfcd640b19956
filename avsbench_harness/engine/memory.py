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

from avsbench_harness.data.batch import Batch
from avsbench_harness.data.layout import Dataset
from avsbench_harness.data.logmel import BANDS, EXAMPLE_FRAMES
from avsbench_harness.engine.bench import all_in_training, random_batch, training_step
from avsbench_harness.engine.optim import build_optimizer
from avsbench_harness.engine.progress import peak_rss_gib
from avsbench_harness.engine.run import Run, RunSpec
from avsbench_harness.engine.system import build_system
from avsbench_harness.errors import AvsbError
from avsbench_harness.method import get_method


def run_batch(run: Run) -> Batch:
    """A batch of noise of the size on which a run trains, on its device."""
    recipe = run.recipe
    batch = random_batch(run.task, recipe.batch_size, recipe.frames, recipe.image_size)
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
        AvsbError: the other process was killed.
    """
    if not run.device.startswith("cuda"):
        # What this process freed before would be used again, and not show.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            try:
                return pool.submit(_growth, method, run.spec, run.dataset).result()
            except BrokenProcessPool:
                raise AvsbError(
                    f"The process that trained on batches of {run.recipe.batch_size} clips was killed, most "
                    "likely because the machine ran out of memory; pass a smaller --batch."
                ) from None
    free_cached()
    torch.cuda.init()  # type: ignore[no-untyped-call]
    torch.cuda.reset_peak_memory_stats(run.device)
    before = torch.cuda.memory_allocated(run.device)
    _train_twice(run)
    return (torch.cuda.max_memory_allocated(run.device) - before) / 2**30


def _growth(method: str, spec: RunSpec, dataset: Dataset) -> float:
    """Growth of this process's peak of resident memory over two training steps, GiB."""
    run = Run(spec=spec, method=get_method(method), dataset=dataset, out=Path())
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
    system = build_system(run, pretrained=False).to(run.device)
    all_in_training(system.model, run.recipe)
    optimizer = build_optimizer(system.param_groups(run.recipe), run.recipe.optimizer)
    step = training_step(system.losses, optimizer, run.recipe, run.device)
    batch = run_batch(run)
    for _ in range(2):
        step(batch)


def largest_batch(step: Callable[[Batch], None], batch: Batch) -> int:
    """The largest number of a batch's clips on which a step does not run out of memory, by bisection.

    Args:
        step: raises ``torch.OutOfMemoryError`` where its batch is too large.
        batch: all of which is known not to fit.

    Returns:
        less than the batch has; 0 if not even one clip fits.
    """
    fits, fails = 0, batch.shape[0]
    while fails - fits > 1:
        middle = (fits + fails) // 2
        try:
            step(batch.select(slice(middle)))
            fits = middle
        except torch.OutOfMemoryError as error:
            traceback.clear_frames(error.__traceback__)
            fails = middle
        free_cached()
    return fits


def out_of_memory(
    error: torch.OutOfMemoryError,
    run: Run,
    losses: Callable[[Batch], dict[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    option: str = "--set batch_size=",
) -> AvsbError:
    """The error for a batch that does not fit, which names the largest that a probe finds to fit.

    The probe trains: weights and optimiser are of no use after it.

    Args:
        error: what was raised; the tensors that its frames hold are let go.
        run: what was trained, and where.
        losses: of the model or the system.
        optimizer: over its parameters.
        batch: on the device.
        option: how the user passes another number of clips.
    """
    traceback.clear_frames(error.__traceback__)
    free_cached()
    clips, frames, height, width = batch.shape
    recipe = run.recipe
    fits = largest_batch(training_step(losses, optimizer, recipe, run.device), batch)
    found = (
        f"a probe found that {fits} fit: pass {option}{fits}"
        if fits
        else "not even one fits: lower the recipe's image_size"
    )
    lower = "" if recipe.precision != "fp32" else ", or train in precision bf16"
    return AvsbError(
        f"Training ran out of memory on {run.device} with a batch of {clips} clips of {frames} frames at "
        f"{width}x{height} pixels in {recipe.precision}; {found}{lower}."
    )


def free_cached() -> None:
    """Give back what no tensor uses any more."""
    gc.collect()
    torch.cuda.empty_cache()
