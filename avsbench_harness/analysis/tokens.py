"""Audio tokens that a trained model computes for the clips of a split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avsbench_harness.data.clip import Clip
from avsbench_harness.data.loader import in_order, load
from avsbench_harness.engine.predict import evaluation_clips
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.system import autocast, build_system, set_determinism
from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.tasks import CLASSES, Split, Task
from avsbench_harness.weights.tensors import load_tensors


@dataclass(frozen=True)
class ClipTokens:
    """Audio tokens of one clip.

    Attributes:
        clip: id of the clip.
        classes: sounding classes, sorted; empty if unknown (ms3).
        several: whether the clip may have more than one source; always true in ms3.
        tokens: (N,D) float32.
    """

    clip: str
    classes: tuple[str, ...]
    several: bool
    tokens: NDArray[np.float32]


def audio_tokens(run: Run, split: Split) -> list[ClipTokens]:
    """Compute the audio tokens of every clip of a split, in the order of the data set.

    The model must have a method ``audio_tokens(batch)`` that returns (B,N,D).

    Raises:
        MissingDataError: the run has no trained weights, or the split has no clips.
        UsageError: the model has no audio tokens.
    """
    if not run.weights_file.is_file():
        raise MissingDataError(f"{run.id} has no trained weights at {run.weights_file}; train it first.")
    set_determinism(run)
    system = build_system(run, pretrained=False)
    compute_tokens = getattr(system.model, "audio_tokens", None)
    if compute_tokens is None:
        raise UsageError(
            f"{run.spec.method} has no audio tokens: its model does not define audio_tokens(batch)."
        )
    system.load_state_dict(load_tensors(run.weights_file))
    system.to(run.device).eval()
    dataset = evaluation_clips(run, split)
    clips = dataset.clips
    batches = in_order(len(clips), run.recipe.batch_size)
    found: list[ClipTokens] = []
    for keys, batch in zip(
        batches, load(dataset, batches, workers=run.workers, device=run.device), strict=True
    ):
        with torch.no_grad(), autocast(run.recipe.precision, run.device):
            tokens: Tensor = compute_tokens(system.embed(batch.to(run.device)))
        for (index, _), values, masks in zip(keys, tokens, batch.ground_truth(), strict=True):
            classes = sounding_classes(clips[index], masks, run.task)
            several = len(classes) > 1 or not classes
            found.append(ClipTokens(clips[index].id, classes, several, values.float().cpu().numpy()))
    return found


def sounding_classes(clip: Clip, masks: Tensor, task: Task) -> tuple[str, ...]:
    """The sounding classes of a clip, sorted: from its masks (avss), its category (s4), or none (ms3).

    Args:
        clip: the clip.
        masks: (T,H,W) ground truth of the clip.
        task: the task.
    """
    if task.semantic:
        return tuple(sorted(CLASSES[index] for index in torch.unique(masks).tolist() if index))
    return (clip.category,) if clip.category else ()
