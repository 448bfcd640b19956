"""AVSS frames as COMBO's preprocessing saves them: 224x224, as JPEG for a second time.

``<label>/<uid>/processed_frames/<k>.jpg`` beside ``frames``: in training the shorter side is resized and the
centre cropped, otherwise the whole frame is squeezed. Labels need no files of their own, because NEAREST
resizing in memory gives the same ones.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.data.clip import Clip
from avsbench_harness.errors import UsageError
from avsbench_harness.files import sha256_json
from avsbench_harness.tasks import SPLITS

logger = logging.getLogger(__name__)


def processed_clips(clips: Sequence[Clip]) -> list[Clip]:
    """Return the clips with their processed frames, which may be missing."""
    return [
        replace(
            clip, frames=tuple(path.parent.parent / "processed_frames" / path.name for path in clip.frames)
        )
        for clip in clips
    ]


def processed_fingerprint(dataset: Dataset) -> str | None:
    """Return the SHA-256 over names and sizes of all processed frames.

    If a file is missing, a message is logged and the result is ``None``: the original frames are to be read.

    Raises:
        UsageError: the task is not avss.
    """
    if not dataset.task.semantic:
        raise UsageError(
            f"The recipe's processed_frames are of avss, not of {dataset.task.name}; leave it out."
        )
    frames = [
        path for split in SPLITS for clip in processed_clips(dataset.clips(split)) for path in clip.frames
    ]
    sizes = []
    for path in frames:
        try:
            sizes.append((path.relative_to(dataset.folder).as_posix(), path.stat().st_size))
        except OSError:
            logger.info(
                f"The original frames are read instead of processed_frames: {path} is missing; COMBO's own "
                "preprocessing makes these files, one split at a time."
            )
            return None
    return sha256_json(sizes)
