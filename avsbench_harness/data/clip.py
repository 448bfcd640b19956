"""A clip of the benchmark as a list of files, and the names that clips may have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: The rule of :func:`is_clip_id`, for messages.
CLIP_ID_RULE = (
    "1 to 128 printable characters (at most 240 bytes) without '/', '\\' and ':', do not start with "
    "'.', have no space at either end and are not 'header'"
)


def is_clip_id(name: str) -> bool:
    """Whether a name can be a clip's id: safe in paths, in logs and as a member of a submission."""
    return (
        0 < len(name) <= 128
        and name.isprintable()  # hence no control characters, and no lone surrogates
        and len(name.encode()) <= 240
        and not any(character in name for character in "/\\:")
        and not name.startswith(".")
        and name == name.strip()
        and name != "header"
    )


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
