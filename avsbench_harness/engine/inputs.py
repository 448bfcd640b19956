"""What a run's system takes beside frames and masks: the sound of a split, and its maskiges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.data.maskige import maskige_files
from avsbench_harness.engine.embeddings import embed_clips, log_mel_clips
from avsbench_harness.engine.progress import bar
from avsbench_harness.engine.run import Run
from avsbench_harness.errors import MissingDataError
from avsbench_harness.nn.audio_encoder import build_audio_encoder
from avsbench_harness.tasks import Split


def audio_inputs(run: Run, split: Split) -> Mapping[str, NDArray[np.float32]]:
    """Per clip id, the frozen encoder's embeddings (T,128), or log-mels (T,1,96,64) for a trained one."""
    clips = run.dataset.clips(split)
    audio = run.spec.audio
    with bar() as progress:
        display = progress.add_task(f"sound of {split}", total=len(clips), note="")

        def advance(count: int) -> None:
            progress.advance(display, count)

        if audio.trained:
            return log_mel_clips(clips, run.task, advance)
        assert audio.weights is not None  # a frozen encoder has weights: the plan sees to it
        encoder = build_audio_encoder(audio.encoder, run.weights["audio"])
        return embed_clips(clips, run.task, encoder, audio.weights, run.device, advance)


def maskige_inputs(run: Run, split: Split) -> Mapping[str, Sequence[Path]] | None:
    """Per clip id, the maskige files of its frames; ``None`` where the recipe wants none.

    Raises:
        MissingDataError: some are not there; the message names the command that makes them.
    """
    source = run.recipe.maskige
    if source is None:
        return None
    found = {clip.id: maskige_files(run.dataset, clip, source) for clip in run.dataset.clips(split)}
    missing = [path for paths in found.values() for path in paths if not path.is_file()]
    if missing:
        hint = (
            f"`avsb data maskige {run.dataset.root} --task {run.task.name}` makes them"
            if source != "published"
            else f"fetch the authors', or make others with `avsb data maskige {run.dataset.root} "
            f"--task {run.task.name}` and pass --set maskige=felzenszwalb"
        )
        raise MissingDataError(
            f"{len(missing)} maskiges of the {split} split are missing, the first is {missing[0]}: {hint}."
        )
    return found
