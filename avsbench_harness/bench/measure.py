"""How long a method takes: its passes, its training step, and its waiting for data.

Times on one machine drift by a factor of two within minutes; multiples of the bare visual backbone, measured
in turns with it, do not.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avsbench_harness.data.batch import Batch
from avsbench_harness.engine.optim import set_training
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.step import Stepper
from avsbench_harness.engine.system import System, autocast, build_system
from avsbench_harness.nn.model import Model
from avsbench_harness.recipe.schema import Recipe


@dataclass(frozen=True)
class Timing:
    """How long one call took, repeat by repeat, in seconds.

    Attributes:
        elapsed: by the clock on the CPU, of the device on CUDA.
        busy: processor time of all threads on the CPU, which other programs disturb least; on CUDA as
            ``elapsed``.
    """

    elapsed: tuple[float, ...]
    busy: tuple[float, ...]


@dataclass(frozen=True)
class Multiples:
    """A model and its bare backbone, timed in turns: their repeats belong together in pairs.

    Attributes:
        forward: the model's forward pass without gradients.
        step: forward, loss, backward and optimiser; some methods train on annotated frames alone.
        bare_forward: the bare backbone's forward pass without gradients.
        bare_step: the bare backbone's forward and backward, of all frames.
    """

    forward: Timing
    step: Timing
    bare_forward: Timing
    bare_step: Timing

    @property
    def forward_multiples(self) -> tuple[float, ...]:
        """The forward pass as multiples of the backbone's, repeat by repeat."""
        return _ratios(self.forward, self.bare_forward)

    @property
    def step_multiples(self) -> tuple[float, ...]:
        """The training step as multiples of the backbone's forward and backward, repeat by repeat."""
        return _ratios(self.step, self.bare_step)

    @property
    def of_forward(self) -> float:
        """The median of the forward pass's multiples."""
        return statistics.median(self.forward_multiples)

    @property
    def of_step(self) -> float:
        """The median of the training step's multiples."""
        return statistics.median(self.step_multiples)

    @property
    def backbone_forward(self) -> float:
        """Median seconds that the bare backbone's forward pass keeps processors or the device busy."""
        return statistics.median(self.bare_forward.busy)

    @property
    def backbone_step(self) -> float:
        """The same of its forward and backward."""
        return statistics.median(self.bare_step.busy)


def system_step(run: Run) -> Callable[[Batch], None]:
    """A training step of a run's system with random weights, on its device.

    The backbone is trainable, as after the epochs for which the recipe freezes it.
    """
    return _training_step(build_system(run, pretrained=False).to(run.device), run.recipe, run.device)


def _training_step(system: System, recipe: Recipe, device: str) -> Callable[[Batch], None]:
    _set_training(system.model, recipe)
    stepper = Stepper(system, recipe, device)

    def step(batch: Batch) -> None:
        stepper.step(batch, batch.shape[0], number=0, lr_factor=1.0)

    return step


def measure(
    model: Model, backbone: nn.Module, recipe: Recipe, batch: Batch, *, repeats: int = 4
) -> Multiples:
    """Time a model and its bare backbone in turns, on the device where they are.

    Args:
        model: its weights are moved by the training steps.
        backbone: a network of its own, see ``nn.backbone.build_backbone``.
        recipe: names the optimiser, the precision of both networks, and what stays frozen.
        batch: on the model's device; its frames are also what the backbone sees.
        repeats: of each of the four times, after one warm-up.
    """
    device = batch.images.device
    train = _training_step(System(model, encoder=None), recipe, device.type)
    frames = batch.images.flatten(0, 1)

    def forward() -> None:
        with torch.no_grad(), autocast(recipe.precision, device.type):
            model(batch)

    def bare_forward() -> None:
        with torch.no_grad(), autocast(recipe.precision, device.type):
            backbone(frames)

    def bare_step() -> None:
        backbone.zero_grad(set_to_none=True)
        with autocast(recipe.precision, device.type):
            maps: Sequence[Tensor] = backbone(frames)
            total = torch.stack([level.mean() for level in maps]).sum()
        total.backward()

    model.eval()
    backbone.eval()
    plain = _in_turns([forward, bare_forward], device, repeats)
    _set_training(model, recipe)
    backbone.train()
    trained = _in_turns([lambda: train(batch), bare_step], device, repeats)
    return Multiples(plain[0], trained[0], plain[1], trained[1])


def _set_training(model: Model, recipe: Recipe) -> None:
    """Training mode as after the epochs for which the recipe freezes the backbone."""
    set_training(model, model.backbone, recipe.backbone, epoch=sys.maxsize)


def waiting_share(
    batches: Iterable[Batch], step: Callable[[Batch], None], device: str, *, warm_up: int
) -> float:
    """The share of a training loop's time, in [0, 1], that it waits for the next batch.

    The device is awaited after every step, so that what a GPU could still do while the loop waits is not
    taken off: an upper bound.

    Args:
        batches: from ``data.loader.load``; more than ``warm_up``.
        step: one training step.
        device: where batches go.
        warm_up: batches that are not counted: they start the loader's processes, and those have read ahead.
    """
    waited = total = 0.0
    source = iter(batches)
    for count in range(sys.maxsize):
        asked = time.perf_counter()
        batch = next(source, None)
        if batch is None:
            break
        batch = batch.to(device, non_blocking=True)
        given = time.perf_counter()
        step(batch)
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        if count >= warm_up:
            waited += given - asked
            total += time.perf_counter() - asked
    if not total:
        raise ValueError(f"There must be more batches than {warm_up}, the warm-up.")
    return waited / total


def _ratios(of: Timing, to: Timing) -> tuple[float, ...]:
    return tuple(ours / theirs for ours, theirs in zip(of.busy, to.busy, strict=True))


def _in_turns(calls: Sequence[Callable[[], None]], device: torch.device, repeats: int) -> list[Timing]:
    """The times of each call, one after the other, ``repeats`` times over."""
    times: list[list[tuple[float, float]]] = [[] for _ in calls]
    for repeat in range(repeats + 1):
        for call, found in zip(calls, times, strict=True):
            seconds = _seconds(call, device)
            if repeat:  # the first round warms caches and allocators up
                found.append(seconds)
    return [Timing(*map(tuple, zip(*found, strict=True))) for found in times]


def _seconds(call: Callable[[], None], device: torch.device) -> tuple[float, float]:
    """Elapsed and busy seconds, see :class:`Timing`."""
    if device.type != "cuda":
        started, busy = time.perf_counter(), time.process_time()
        call()
        return time.perf_counter() - started, time.process_time() - busy
    with torch.cuda.device(device):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
    seconds = float(begin.elapsed_time(end)) / 1000
    return seconds, seconds
