"""The sound of a split's clips as a trained model sees it: its audio tokens, for pictures of them."""

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
    """One clip's sound.

    Attributes:
        clip: its id.
        classes: what sounds in it, sorted; empty where the task does not say (ms3).
        several: whether there is more than one source; in ms3 there always may be.
        tokens: (N,D) float32.
    """

    clip: str
    classes: tuple[str, ...]
    several: bool
    tokens: NDArray[np.float32]


def audio_tokens(run: Run, split: Split) -> list[ClipTokens]:
    """The audio tokens of every clip of a split, in the table's order.

    A model offers them by a method ``audio_tokens(batch)``, which gives (B,N,D).

    Raises:
        MissingDataError: the run is not trained, or the split has no clips.
        UsageError: its model has no audio tokens.
    """
    if not run.weights_file.is_file():
        raise MissingDataError(f"{run.id} has no trained weights at {run.weights_file}; train it first.")
    set_determinism(run)
    system = build_system(run, pretrained=False)
    offered = getattr(system.model, "audio_tokens", None)
    if offered is None:
        raise UsageError(f"{run.spec.method} has no audio tokens to look at: its model does not offer any.")
    system.load_state_dict(load_tensors(run.weights_file))
    system.to(run.device).eval()
    dataset = evaluation_clips(run, split)
    clips = dataset.clips
    batches = in_order(len(clips), run.recipe.batch_size)
    found: list[ClipTokens] = []
    for keys, batch in zip(
        batches, load(dataset, batches, workers=run.workers, device=run.device), strict=True
    ):
        with torch.no_grad(), autocast(run):
            tokens: Tensor = offered(system.embed(batch.to(run.device)))
        for (index, _), values, masks in zip(keys, tokens, batch.ground_truth(), strict=True):
            classes = sounding(clips[index], masks, run.task)
            several = len(classes) > 1 or not classes
            found.append(ClipTokens(clips[index].id, classes, several, values.float().cpu().numpy()))
    return found


def sounding(clip: Clip, masks: Tensor, task: Task) -> tuple[str, ...]:
    """The classes that sound in a clip, sorted: those of its masks (avss), its category (s4), or none.

    Args:
        clip: the clip.
        masks: (T,H,W) its ground truth.
        task: decides where the classes are.
    """
    if task.semantic:
        return tuple(sorted(CLASSES[index] for index in torch.unique(masks).tolist() if index))
    return (clip.category,) if clip.category else ()
