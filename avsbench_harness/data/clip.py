"""A clip of the benchmark as a list of files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Clip:
    """A clip of 5 or 10 one-second frames with its audio and its ground truth.

    Attributes:
        id: unique in its task; names the clip in submissions, solutions and errors.
        frames: one image file per second, in order; its length is the number of valid frames.
        masks: one entry per frame, ``None`` for frames that are not annotated.
        audio: the recording (wav, flac or ogg), ``None`` if there is only a log-mel pickle.
        logmel: the published pickle of log-mel examples, ``None`` if there is none.
        category: the sounding class or classes as in the tables.
        subset: ``v1s``, ``v1m`` or ``v2`` in AVSS, else the task's name.
    """

    id: str
    frames: tuple[Path, ...]
    masks: tuple[Path | None, ...]
    audio: Path | None
    logmel: Path | None
    category: str
    subset: str
