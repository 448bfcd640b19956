"""The sound of a split as the run's system takes it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.engine.embeddings import embed_clips, log_mel_clips
from avsbench_harness.engine.progress import bar
from avsbench_harness.engine.run import Run
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
