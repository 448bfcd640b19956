"""The inputs of a run besides frames and masks: the audio of a split, and its maskiges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.console import counter
from avsbench_harness.data.audio.changes import Change
from avsbench_harness.data.avsbench.layout import Dataset, open_dataset
from avsbench_harness.data.avsbench.processed import processed_clips
from avsbench_harness.data.cache.audio import Progress, embed_clips, log_mel_clips
from avsbench_harness.data.clip import Clip
from avsbench_harness.data.epochs import Epochs
from avsbench_harness.data.maskige import maskige_command, maskige_files
from avsbench_harness.data.propagate import with_pseudo_masks
from avsbench_harness.engine import optim
from avsbench_harness.engine.interrupt import StopRequest
from avsbench_harness.engine.run import Run
from avsbench_harness.errors import MissingDataError
from avsbench_harness.nn.audio_encoder import build_audio_encoder
from avsbench_harness.robustness.conditions import check_available, condition_audio, get_condition
from avsbench_harness.tasks import S4, Split


def split_clips(run: Run, split: Split) -> list[Clip]:
    """Return the clips of a split with the frames that the run reads."""
    clips = run.dataset.clips(split)
    return clips if run.spec.data.processed is None else processed_clips(clips)


def training_clips(run: Run) -> list[Clip]:
    """Return the clips of the train split, with pseudo-masks of S4 if the recipe requests them.

    On MS3 they are followed by the S4 training clips of the same data root, with ids under ``s4/``.
    """
    clips, source = split_clips(run, "train"), run.recipe.supplement
    if source is None:
        return clips
    if run.task is S4:
        return with_pseudo_masks(run.dataset, clips, source)
    single = open_dataset(run.dataset.root, S4)
    more = with_pseudo_masks(single, single.clips("train"), source)
    return [*clips, *(replace(clip, id=f"s4/{clip.id}") for clip in more)]


def audio_inputs(
    run: Run, split: Split, clips: Sequence[Clip] | None = None
) -> Mapping[str, NDArray[np.float32]]:
    """Return per clip id the frozen encoder's embeddings (T,128), or log-mels (T,1,96,64) for a trained one.

    If the recipe separates sources, both have an axis of S sources after the first. ``clips`` defaults to the
    clips of the split, with the audio of the run's condition, without clips that the condition leaves out.
    """
    if clips is not None:
        return own_audio(run, split, clips)
    check_available(run.condition, run.dataset, split)
    change = get_condition(run.condition).change(run.dataset, split)
    clips = run.dataset.clips(split)
    if change is not None and change.kind == "mixed":
        clips = [clip for clip in clips if clip.id in change.others]
    return condition_audio(run.condition, run.dataset, split, own_audio(run, split, clips, change))


def own_audio(
    run: Run, split: Split, clips: Sequence[Clip], change: Change | None = None
) -> Mapping[str, NDArray[np.float32]]:
    """Return the audio inputs from each clip's own recording, or from the changed one."""
    audio, separator = run.spec.audio, run.recipe.audio.separator
    with audio_progress(split, len(clips)) as advance:
        if audio.trained:
            return log_mel_clips(clips, run.task, advance, separator, change)
        assert audio.weights is not None  # ensured by the plan for a frozen encoder
        encoder = build_audio_encoder(audio.encoder, run.weights["audio"])
        return embed_clips(clips, run.task, encoder, audio.weights, run.device, advance, separator, change)


@contextmanager
def audio_progress(split: Split, clips: int, stop: StopRequest | None = None) -> Iterator[Progress]:
    """A progress bar for the audio of a split; yields the function that advances it by a number of clips.

    Raises:
        Interrupted: a stop was requested; checked between clips.
    """
    with counter(f"audio of {split}", clips) as step:

        def advance(count: int) -> None:
            if stop:
                raise stop.error("The audio computed so far is kept; rerun the same command to resume.")
            step(count)

        yield advance


def maskige_inputs(run: Run, split: Split) -> Mapping[str, Sequence[Path]] | None:
    """Return per clip id the maskige files of its frames; ``None`` if the recipe uses no maskiges.

    Raises:
        MissingDataError: some are missing; the message names the command that makes them.
    """
    source = run.recipe.maskige
    return None if source is None else maskige_paths(run.dataset, split, source, used_clips(run, split))


def training_epochs(run: Run, clips: int) -> Epochs:
    """Return the batches of a run over ``clips`` training clips."""
    recipe = run.recipe
    return Epochs(clips, recipe.batch_size, recipe.partial_batches, run.spec.seed)


def used_clips(run: Run, split: Split) -> list[Clip]:
    """Return the clips of a split that the run reads: not all if its training is shorter than an epoch."""
    clips = run.dataset.clips(split)
    if split != "train" or not clips:
        return clips
    epochs = training_epochs(run, len(clips))
    return [clips[index] for index in epochs.used(optim.length(run.recipe, epochs))]


def maskige_paths(
    dataset: Dataset, split: Split, source: str, needed: Sequence[Clip] | None = None
) -> Mapping[str, Sequence[Path]]:
    """Return per clip id the maskige files of one source.

    Args:
        dataset: the data set.
        split: the split.
        source: the source.
        needed: the clips whose files must exist; by default all.

    Raises:
        UsageError: the source is unknown.
        MissingDataError: some are missing; the message names the command that makes them.
    """
    clips = dataset.clips(split)
    found = {clip.id: maskige_files(dataset, clip, source) for clip in clips}
    checked = clips if needed is None else needed
    missing = [path for clip in checked for path in found[clip.id] if not path.is_file()]
    if missing:
        hint = (
            f"`{maskige_command(dataset, source)}` makes them"
            if source != "published"
            else "fetch the authors' files, or make maskiges with "
            f"`{maskige_command(dataset, 'felzenszwalb')}` and pass --set maskige=felzenszwalb"
        )
        raise MissingDataError(
            f"{len(missing)} maskiges of the {split} split are missing, the first is {missing[0]}: {hint}."
        )
    return found
