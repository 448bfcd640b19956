"""The recipe's ``augment.negative_audio``: audio inputs of training clips under negative audio."""

from __future__ import annotations

from collections.abc import Sequence

from avsbench_harness.data.audio.changes import Change, ChangeKind
from avsbench_harness.data.clip import Clip
from avsbench_harness.data.frame_sampling import SampledAudio
from avsbench_harness.data.negatives import ClipKinds, Negatives, Sounds
from avsbench_harness.engine.inputs import own_audio
from avsbench_harness.engine.run import Run
from avsbench_harness.errors import UsageError
from avsbench_harness.robustness.pairs import sounding_kinds, visible_kinds


def negative_audio(run: Run, clips: Sequence[Clip], own: Sounds) -> Negatives | None:
    """Return the negative audio of a run's training clips; ``None`` if the recipe has none.

    Args:
        run: the run.
        clips: the training clips that it uses, with all of their frames.
        own: the audio inputs from their own recordings, with the frames that the run reads.

    Raises:
        UsageError: recordings are to be swapped, and the kinds of sounds are not known or no two differ.
        MissingDataError: noise needs recordings, and the data have log-mels alone.
    """
    shares = run.recipe.augment.negative_audio
    if shares is None:
        return None

    def changed(kind: ChangeKind) -> Sounds:
        sounds: Sounds = own_audio(run, "train", clips, Change(kind))
        frames = run.recipe.frames
        return sounds if frames is None else SampledAudio(sounds, clips, frames)

    silence = changed("silence") if shares.silence else {}
    noise = [changed("white"), changed("pink")] if shares.noise else []
    kinds = _kinds(run, clips) if shares.swapped else [_without_kinds(clip) for clip in clips]
    negatives = Negatives(shares, silence, noise, own, kinds)
    if shares.swapped and not any(negatives.others(clip.id) for clip in clips):
        raise UsageError(
            f"No recording of {run.dataset.root} can be swapped in training: no two clips of the train split "
            "have different kinds; leave augment.negative_audio.swapped out."
        )
    return negatives


def _without_kinds(clip: Clip) -> ClipKinds:
    return ClipKinds(clip.id, frozenset(), frozenset(), len(clip.frames))


def _kinds(run: Run, clips: Sequence[Clip]) -> list[ClipKinds]:
    dataset = run.dataset
    unknown = run.task.name == "ms3" and dataset.composed is None
    if unknown or (run.task.name == "ms3" and run.recipe.supplement is not None):
        reason = "the kinds of sounds of ms3 are not published" if unknown else "S4's clips are added to ms3"
        raise UsageError(
            f"augment.negative_audio.swapped is not possible, because {reason}, so that a swapped recording "
            "may fit the picture; use silence and noise."
        )
    return [
        ClipKinds(
            clip.id,
            sounding_kinds(dataset, "train", clip),
            visible_kinds(dataset, "train", clip),
            len(clip.frames),
        )
        for clip in clips
    ]
