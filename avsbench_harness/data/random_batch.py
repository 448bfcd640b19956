"""Random batches with ground truth, for benchmarks and tests."""

from __future__ import annotations

from typing import Literal

import torch

from avsbench_harness.data.batch import Batch
from avsbench_harness.tasks import S4, Task

#: Side of AVSBench's frames, pixels.
SIDE = 224

#: Annotated frames of a training clip.
Annotated = Literal["first", "all"]


def supervision(task: Task) -> Annotated:
    """Return which frames of a task's training clips are annotated."""
    return "first" if task is S4 else "all"


def random_batch(
    task: Task,
    clips: int = 1,
    frames: int | None = None,
    side: int = SIDE,
    annotated: Annotated | None = None,
    *,
    maskige: bool = True,
    seed: int = 0,
) -> Batch:
    """Return clips of noise whose masks are a square of the task's last class.

    Args:
        task: the task.
        clips: number of clips.
        frames: frames of a clip; ``None``: the task's.
        side: side of the images, pixels.
        annotated: annotated frames; ``None``: those of the task's training clips.
        maskige: whether to add maskiges.
        seed: random seed.
    """
    draw = torch.Generator().manual_seed(seed)
    count = frames or task.frames
    shape = (clips, count, 3, side, side)
    masks = torch.zeros(clips, count, side, side, dtype=torch.int64)
    masks[..., side // 4 : side // 2, side // 4 : side // 2] = max(1, task.channels - 1)
    known = torch.ones(clips, count, dtype=torch.bool)
    known[:, 1:] = (annotated or supervision(task)) == "all"
    return Batch(
        images=torch.randn(shape, generator=draw),
        audio=torch.rand(clips, count, 128, generator=draw),
        maskige=torch.randn(shape, generator=draw) if maskige else None,
        masks=masks,
        annotated=known,
    )
