"""Prediction with trained weights into a submission, and validation in the same way."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from avsbench_harness import distributed
from avsbench_harness.console import progress_bar
from avsbench_harness.data.avsbench.unlabelled import is_labelled, stated_fingerprint, without_masks
from avsbench_harness.data.batch import Batch
from avsbench_harness.data.clip import Clip
from avsbench_harness.data.clip_source import FileDecoder
from avsbench_harness.data.epochs import Key
from avsbench_harness.data.loader import ClipDataset, in_order, load
from avsbench_harness.data.padding import remove_padding
from avsbench_harness.distributed import broadcast_tensor_
from avsbench_harness.engine.acceleration import accelerate
from avsbench_harness.engine.cache_features import cache_features
from avsbench_harness.engine.contract import check_values, rounding
from avsbench_harness.engine.fill_cache import cached_source
from avsbench_harness.engine.inputs import audio_inputs, maskige_inputs, split_clips
from avsbench_harness.engine.interrupt import StopRequest, stop_request
from avsbench_harness.engine.load_weights import load_weights_strict
from avsbench_harness.engine.provenance import check_attempt
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.shown_clips import clip_images
from avsbench_harness.engine.solutions import solution_file
from avsbench_harness.engine.system import System, autocast, build_system, set_determinism
from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.robustness.conditions import condition_note
from avsbench_harness.scoring import get_protocol, score_submission
from avsbench_harness.submission import Header, SubmissionWriter, read_solution, read_submission
from avsbench_harness.tasks import MASK_SIZE, Split, Task
from avsbench_harness.weights.sources import ENCODER
from avsbench_harness.weights.tensors import load_tensors

logger = logging.getLogger(__name__)

#: A clip's prediction in a submission, see :func:`to_masks`.
Masks: TypeAlias = NDArray[np.float32] | NDArray[np.uint8]


def predict(run: Run, split: Split) -> Path:
    """Predict a split with the selected weights of a run under its condition, and write the submission.

    Raises:
        MissingDataError: the run is not trained.
    """
    system = trained_system(run)
    path = run.submission_file(split)
    with stop_request() as stop:
        with distributed.main_process_first():
            clips = cache_features(run, system.model, evaluation_clips(run, split, stop), split, stop)
        write_predictions(run, system, split, clips, path, stop)
    return path


def trained_system(run: Run) -> System:
    """Return a run's system with its selected weights, on its device.

    Raises:
        MissingDataError: the run is not trained.
    """
    if not run.weights_file.is_file():
        raise MissingDataError(
            f"{run.id} has no trained weights at {run.weights_file}; run `avsb train` first."
        )
    set_determinism(run)
    if distributed.rank() == 0:
        check_attempt(run)
    system = build_system(run, pretrained=False)
    _load_weights(run, system)
    accelerate(system.to(run.device), run.recipe)
    return system


def _load_weights(run: Run, system: System) -> None:
    """Load the selected weights of a run, which a method with its own training may have written."""
    try:
        state = load_tensors(run.weights_file)
        load_weights_strict(system, state)
        if system.encoder is not None and not any(name.startswith(ENCODER) for name in state):
            raise UsageError(f"The audio encoder is missing; its entries have the prefix '{ENCODER}'.")
    except UsageError as error:
        raise UsageError(f"{run.weights_file}: {error}") from None


def evaluation_clips(run: Run, split: Split, stop: StopRequest | None = None) -> ClipDataset:
    """Return the clips of a split with all inputs of the run's system, without augmentation.

    Clips that are not cached are decoded first; ``stop`` is checked between them.
    """
    clips = split_clips(run, split)
    if not clips:
        raise MissingDataError(f"The {split} split of {run.dataset.root} has no clips.")
    if not is_labelled(clips):
        clips = without_masks(clips)
    recipe = run.recipe
    decoder = FileDecoder(clips, run.task, recipe.image_size, recipe.fit, maskige_inputs(run, split))
    audio = audio_inputs(run, split)
    return ClipDataset(cached_source(decoder, split, stop), audio)


def validate(
    run: Run, system: System, dataset: ClipDataset, stop: StopRequest, shown: Sequence[Clip] = ()
) -> tuple[dict[str, float | None], dict[str, NDArray[np.uint8]]]:
    """Score the validation split, from a temporary submission of the size that the protocol needs.

    Args:
        run: the run.
        system: its system; all processes use the buffers of rank 0, which checkpoints hold.
        dataset: the clips of the validation split, see :func:`evaluation_clips`.
        stop: checked between batches.
        shown: clips to make images of.

    Returns:
        the metrics, and the images of :func:`.clip_images` on rank 0.
    """
    for values in system.buffers():  # batch statistics differ between processes
        broadcast_tensor_(values)
    path, protocol = run.folder / "val.npz", run.recipe.select.protocol
    sized = replace(run, side=get_protocol(run.task.name, protocol).side or MASK_SIZE)
    write_predictions(sized, system, "val", dataset, path, stop)
    if distributed.rank() != 0:
        return distributed.broadcast(dict[str, float | None]()), {}
    with read_submission(path) as submission, read_solution(solution_file(run.dataset, "val")) as solution:
        scores = score_submission(submission, solution, protocol)
        images = clip_images(shown, submission, solution)
    path.unlink()
    return distributed.broadcast(dict(scores.metrics)), images


def write_predictions(
    run: Run, system: System, split: Split, dataset: ClipDataset, path: Path, stop: StopRequest
) -> None:
    """Predict every clip of a split that has audio and write the submission, whole or not at all.

    Whole batches are distributed over the processes in turn; rank 0 writes the predictions in the order of
    the data set.

    Raises:
        AvsbError: a prediction has a wrong shape or type, is not finite, or is outside [0, 1].
    """
    clips = dataset.clips
    with distributed.main_process_first():
        header = submission_header(run, split, ground_truth_fingerprint(run, split))
    predicted = _indices(dataset)
    system.eval()
    with ExitStack() as stack:
        progress = stack.enter_context(progress_bar())
        display = progress.add_task(f"predict {split}", total=len(predicted), note="")
        writer = stack.enter_context(SubmissionWriter(path, header)) if distributed.rank() == 0 else None
        for own in _rounds(run, system, dataset, predicted):
            if stop.anywhere():
                raise stop.error(f"Nothing was written to {path}; rerun the same command to predict again.")
            for batch in distributed.gather(own):
                for index, masks in batch:
                    assert writer is not None  # only rank 0 gathers
                    writer.add(clips[index].id, masks)
                progress.advance(display, len(batch))


def ground_truth_fingerprint(run: Run, split: Split) -> str:
    """The fingerprint of a split's ground truth: of its masks, or as the data root states it, or empty."""
    if is_labelled(run.dataset.clips(split)):
        with read_solution(solution_file(run.dataset, split)) as solution:
            return solution.fingerprint
    stated = stated_fingerprint(run.dataset, split)
    if distributed.rank() == 0:
        known = "its fingerprint is that of solutions.json" if stated else "it names no ground truth"
        logger.info(
            f"The {split} split of {run.dataset.root} cannot be scored here; the submission has no "
            f"scores, and {known}."
        )
    return stated


def submission_header(run: Run, split: Split, solution: str) -> Header:
    """Return the header of a run's submission; ``solution`` is the fingerprint of the ground truth or empty.

    With a condition other than ``clean`` or other weights than the selected ones, the run's id has a suffix,
    so that it is not recorded as the run.
    """
    notes = ["synthetic data"] if run.dataset.synthetic else []
    notes += filter(None, [condition_note(run.condition, run.dataset, split)])
    return Header(
        task=run.task.name,
        split=split,
        solution=solution,
        method=run.spec.method,
        run=f"{run.id}{run.suffix}",
        note="; ".join(notes),
        size=(run.side, run.side),
    )


def _indices(dataset: ClipDataset) -> list[int]:
    """The indices of the clips that have audio; a condition leaves some out."""
    with_audio = set(dataset.audio)
    return [index for index, clip in enumerate(dataset.clips) if clip.id in with_audio]


def _rounds(
    run: Run, system: System, dataset: ClipDataset, predicted: Sequence[int]
) -> Iterator[list[tuple[int, Masks]]]:
    """Predict this process's batches of some clips, one per round: (clip index, prediction) pairs.

    In the last round there may be no batch for it.
    """
    batches = [
        [(predicted[place], epoch) for place, epoch in batch]
        for batch in in_order(len(predicted), run.recipe.batch_size)
    ]
    own = batches[distributed.rank() :: distributed.world_size()]
    loaded = load(dataset, own, workers=run.workers, device=run.device)
    for keys, batch in zip(own, loaded, strict=True):
        yield predict_batch(run, system, dataset, keys, batch.to(run.device, non_blocking=True))
    if len(own) < -(-len(batches) // distributed.world_size()):
        yield []


def predict_batch(
    run: Run, system: System, dataset: ClipDataset, keys: Sequence[Key], batch: Batch
) -> list[tuple[int, Masks]]:
    """Predict a batch on the run's device: (clip index, prediction) pairs.

    Raises:
        AvsbError: a prediction has a wrong shape or type, is not finite, or is outside [0, 1].
    """
    tolerance = rounding(run.recipe.precision)
    with autocast(run.recipe.precision, run.device):
        prediction = system.predict(batch)
    found = []
    for (index, _), values in zip(keys, prediction, strict=True):
        clip = dataset.clips[index]
        cropped = remove_padding(values[: len(clip.frames)], dataset.content(index), dataset.size)
        check_values(cropped, run.task, run.spec.method, where=f"clip {clip.id}", tolerance=tolerance)
        found.append((index, to_masks(cropped, run.task, run.side)))
    return found


def to_masks(prediction: Tensor, task: Task, side: int | tuple[int, int] = MASK_SIZE) -> Masks:
    """Resize and quantise one clip's prediction to the form of a submission.

    Args:
        prediction: (t,H,W) probabilities or (t,C,H,W) class scores, any size.
        task: the task.
        side: height and width of the masks, or both as (h,w).

    Returns:
        (t,h,w) float32 probabilities, or uint8 labels: the argmax of the softmax, with ties broken by
        the lowest class, as in the published evaluation. Other sizes are resized bilinearly first.
    """
    values = prediction.float()
    size = (side, side) if isinstance(side, int) else side
    if values.shape[-2:] != size:
        stacked = values if task.semantic else values.unsqueeze(1)
        stacked = F.interpolate(stacked, size, mode="bilinear", align_corners=False)
        values = stacked if task.semantic else stacked.squeeze(1)
    if task.semantic:
        labels: NDArray[np.uint8] = values.softmax(1).argmax(1).to(torch.uint8).cpu().numpy()
        return labels
    # Rounding noise of the method, and of bilinear weights, which sum to one only up to rounding.
    probabilities: NDArray[np.float32] = values.clamp(0, 1).cpu().numpy()
    return probabilities
