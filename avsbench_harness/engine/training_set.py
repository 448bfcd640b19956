"""The clips that a run trains on."""

from __future__ import annotations

from avsbench_harness import distributed
from avsbench_harness.data.clip_source import FileDecoder
from avsbench_harness.data.frame_sampling import SampledAudio, sample_files, sample_frames
from avsbench_harness.data.loader import ClipDataset
from avsbench_harness.engine import optim
from avsbench_harness.engine.fill_cache import cached_source
from avsbench_harness.engine.inputs import audio_inputs, maskige_inputs, training_clips, training_epochs
from avsbench_harness.engine.interrupt import StopRequest
from avsbench_harness.engine.negative_audio import negative_audio
from avsbench_harness.engine.run import Run
from avsbench_harness.errors import MissingDataError, TooManyProcesses, UsageError


def training_set(run: Run, stop: StopRequest | None = None, *, ahead: bool = True) -> ClipDataset:
    """Return the clips that a run trains on, prepared by its recipe.

    Args:
        run: the run.
        stop: checked between clips that are decoded ahead.
        ahead: decode all clips that are not cached now, unless the run is shorter than an epoch.

    Raises:
        MissingDataError: there are no clips, or a file is missing.
        TooManyProcesses: there are more processes than clips, or than clips in a batch.
    """
    if not run.dataset.clips("train"):
        raise MissingDataError(f"The train split of {run.dataset.root} has no clips.")
    clips = training_clips(run)
    _check_shares(run, len(clips))
    epochs = training_epochs(run, len(clips))
    length = optim.length(run.recipe, epochs)
    used = [clips[index] for index in epochs.used(length)]
    audio, maskiges = audio_inputs(run, "train", used), maskige_inputs(run, "train")
    if (frames := run.recipe.frames) is not None:
        audio = SampledAudio(audio, clips, frames)
    negatives = negative_audio(run, used, audio)
    if frames is not None:
        maskiges = None if maskiges is None else sample_files(maskiges, clips, frames)
        clips = sample_frames(clips, frames)
    decoder = FileDecoder(clips, run.task, run.recipe.image_size, run.recipe.train_fit, maskiges)
    source = cached_source(decoder, "train", stop, ahead=ahead and length >= epochs.start(1))
    recipe = run.recipe
    return ClipDataset(source, audio, augment=recipe.augment, seed=run.spec.seed, negatives=negatives)


def _check_shares(run: Run, clips: int) -> None:
    """Refuse more processes than clips in a batch, and epochs without a batch."""
    processes, batch = distributed.world_size(), run.recipe.batch_size
    if run.recipe.partial_batches == "drop" and clips < batch:
        raise UsageError(
            f"partial_batches: drop leaves no batch, as batch_size is {batch} and there are {clips} training "
            "clips; lower batch_size, or choose keep or wrap."
        )
    if processes > min(clips, batch):
        raise TooManyProcesses(
            f"{processes} processes need at least as many clips in a batch, and there are "
            f"{min(clips, batch)} (batch_size {batch}, {clips} training clips); start fewer processes."
        )
