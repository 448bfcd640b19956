"""One clip of the benchmark as files on disk, before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Clip:
    """A cut of 5 or 10 one-second frames with its sound and its ground truth.

    Attributes:
        id: unique in its task; names the clip in submissions, solutions and errors.
        frames: one image file per second, in order; its length is the clip's real number of frames.
        masks: one entry per frame, ``None`` where the benchmark gives no ground truth.
        audio: the recording (wav, flac or ogg), ``None`` where only the log-mel pickle is there.
        logmel: the published pickle of log-mel examples, ``None`` where there is none.
        category: the sounding class or classes as the tables write them.
        subset: ``v1s``, ``v1m`` or ``v2`` in AVSS, else the task's name.
    """

    id: str
    frames: tuple[Path, ...]
    masks: tuple[Path | None, ...]
    audio: Path | None
    logmel: Path | None
    category: str
    subset: str
