"""Timing of a method: forward pass, training step, and waiting for data.

Times on one machine may drift by a factor of two within minutes; multiples of the bare visual backbone,
measured alternately with it, do not.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avsbench_harness.console import counter
from avsbench_harness.data.batch import Batch
from avsbench_harness.engine.optim import set_training
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.step import Stepper
from avsbench_harness.engine.system import System, autocast, build_system
from avsbench_harness.nn.model import Model
from avsbench_harness.recipe.schema import Recipe


@dataclass(frozen=True)
class Timing:
    """Durations of one call, per repetition, in seconds.

    Attributes:
        elapsed: wall time on the CPU, device time on CUDA.
        busy: CPU time of all threads, which other programs influence least; on CUDA as ``elapsed``.
    """

    elapsed: tuple[float, ...]
    busy: tuple[float, ...]


@dataclass(frozen=True)
class Multiples:
    """Timings of a model and of its bare backbone, measured alternately: repetitions are pairs.

    Attributes:
        forward: the model's forward pass without gradients.
        step: the model's training step; some methods train on annotated frames only.
        bare_forward: the bare backbone's forward pass without gradients.
        bare_step: the bare backbone's forward and backward pass on all frames.
    """

    forward: Timing
    step: Timing
    bare_forward: Timing
    bare_step: Timing

    @property
    def forward_multiples(self) -> tuple[float, ...]:
        """Forward pass relative to the backbone's, per repetition."""
        return _ratios(self.forward, self.bare_forward)

    @property
    def step_multiples(self) -> tuple[float, ...]:
        """Training step relative to the backbone's forward and backward pass, per repetition."""
        return _ratios(self.step, self.bare_step)

    @property
    def of_forward(self) -> float:
        """Median of :attr:`forward_multiples`."""
        return statistics.median(self.forward_multiples)

    @property
    def of_step(self) -> float:
        """Median of :attr:`step_multiples`."""
        return statistics.median(self.step_multiples)

    @property
    def backbone_forward(self) -> float:
        """Median busy time of the bare backbone's forward pass, seconds."""
        return statistics.median(self.bare_forward.busy)

    @property
    def backbone_step(self) -> float:
        """Median busy time of the bare backbone's forward and backward pass, seconds."""
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
    """Time a model and its bare backbone alternately, on their device.

    Args:
        model: its weights are changed by the training steps.
        backbone: a separate network, see ``nn.backbone.build_backbone``.
        recipe: gives the optimiser, the precision of both networks, and the frozen parameters.
        batch: on the model's device; its frames are also the backbone's input.
        repeats: timed repetitions after one warm-up.
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
    plain = _alternately("forward", [forward, bare_forward], device, repeats)
    _set_training(model, recipe)
    backbone.train()
    trained = _alternately("training", [lambda: train(batch), bare_step], device, repeats)
    return Multiples(plain[0], trained[0], plain[1], trained[1])


def _set_training(model: Model, recipe: Recipe) -> None:
    """Set training mode as after the epochs in which the recipe freezes the backbone."""
    set_training(model, model.backbone, recipe.backbone, epoch=sys.maxsize)


def waiting_share(
    batches: Iterable[Batch], step: Callable[[Batch], None], device: str, *, warm_up: int
) -> float:
    """The fraction of a training loop's time, in [0, 1], spent waiting for the next batch.

    An upper bound: the device is synchronised after every step, so it does not compute while the loop waits.

    Args:
        batches: from ``data.loader.load``; more than ``warm_up``.
        step: one training step.
        device: device of the batches.
        warm_up: batches that are not counted: they include the start of the workers and their prefetch.
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


def _alternately(
    name: str, calls: Sequence[Callable[[], None]], device: torch.device, repeats: int
) -> list[Timing]:
    """Time all calls alternately, ``repeats`` times each; ``name`` is that of the progress bar."""
    times: list[list[tuple[float, float]]] = [[] for _ in calls]
    with counter(name, (repeats + 1) * len(calls), refresh=False) as advance:
        for repeat in range(repeats + 1):
            for call, found in zip(calls, times, strict=True):
                seconds = _seconds(call, device)
                if repeat:  # the first round is a warm-up
                    found.append(seconds)
                advance(1)
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
