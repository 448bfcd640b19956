"""How long a method takes, as a multiple of its bare visual backbone.

Times on one machine drift by a factor of two within minutes; multiples of a known network, measured in
turns with it, do not.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avsbench_harness.data.batch import Batch
from avsbench_harness.engine.optim import build_optimizer
from avsbench_harness.engine.recipe import Recipe
from avsbench_harness.nn.model import Model
from avsbench_harness.tasks import Task

#: Side of the images in the benchmark's frames, pixels.
SIDE = 224


@dataclass(frozen=True)
class Multiples:
    """Medians of interleaved repeats: seconds of processor time on the CPU, of the device on CUDA.

    Attributes:
        forward: the model's forward pass without gradients.
        step: forward, loss, backward and optimiser.
        backbone_forward: the bare backbone's forward pass without gradients.
        backbone_step: the bare backbone's forward and backward.
    """

    forward: float
    step: float
    backbone_forward: float
    backbone_step: float

    @property
    def of_forward(self) -> float:
        """The forward pass as a multiple of the backbone's."""
        return self.forward / self.backbone_forward

    @property
    def of_step(self) -> float:
        """The training step as a multiple of the backbone's forward and backward."""
        return self.step / self.backbone_step


def random_batch(task: Task, clips: int = 1, frames: int | None = None, side: int = SIDE) -> Batch:
    """Clips of noise, every frame annotated, with a square in front; the same each time.

    Args:
        task: whose last class the square is.
        clips: number of clips.
        frames: of a clip; ``None``: the task's.
        side: of the images, pixels.
    """
    draw = torch.Generator().manual_seed(0)
    count = frames or task.frames
    shape = (clips, count, 3, side, side)
    masks = torch.zeros(clips, count, side, side, dtype=torch.int64)
    masks[..., side // 4 : side // 2, side // 4 : side // 2] = max(1, task.channels - 1)
    return Batch(
        images=torch.randn(shape, generator=draw),
        audio=torch.rand(clips, count, 128, generator=draw),
        maskige=torch.randn(shape, generator=draw),
        masks=masks,
    )


def measure(
    model: Model, backbone: nn.Module, recipe: Recipe, batch: Batch, *, repeats: int = 4
) -> Multiples:
    """Time a model and its bare backbone in turns, on the device where they are.

    Args:
        model: its weights are moved by the training steps.
        backbone: a network of its own, see ``nn.backbone.build_backbone``.
        recipe: names the optimiser.
        batch: on the model's device; its frames are also what the backbone sees.
        repeats: of each of the four times, after one warm-up.
    """
    optimizer = build_optimizer(model.param_groups(recipe), recipe.optimizer)
    frames = batch.images.flatten(0, 1)

    def forward() -> None:
        with torch.no_grad():
            model(batch)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(model.losses(batch).values())).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def backbone_forward() -> None:
        with torch.no_grad():
            backbone(frames)

    def backbone_step() -> None:
        backbone.zero_grad(set_to_none=True)
        maps: Sequence[Tensor] = backbone(frames)
        torch.stack([level.mean() for level in maps]).sum().backward()  # type: ignore[no-untyped-call]

    device = batch.images.device
    model.eval()
    backbone.eval()
    plain = _in_turns([forward, backbone_forward], device, repeats)
    model.train()
    backbone.train()
    trained = _in_turns([step, backbone_step], device, repeats)
    return Multiples(plain[0], trained[0], plain[1], trained[1])


def _in_turns(calls: Sequence[Callable[[], None]], device: torch.device, repeats: int) -> list[float]:
    """The median seconds of each call, one after the other, ``repeats`` times over."""
    times: list[list[float]] = [[] for _ in calls]
    for repeat in range(repeats + 1):
        for call, found in zip(calls, times, strict=True):
            seconds = _seconds(call, device)
            if repeat:  # the first round warms caches and allocators up
                found.append(seconds)
    return [statistics.median(found) for found in times]


def _seconds(call: Callable[[], None], device: torch.device) -> float:
    """Processor time of all threads on the CPU, elapsed time of the device on CUDA."""
    if device.type != "cuda":
        started = time.process_time()
        call()
        return time.process_time() - started
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize(device)
    return float(begin.elapsed_time(end)) / 1000
