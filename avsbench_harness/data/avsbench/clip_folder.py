"""A folder of clips without a table: one folder per clip, with its frames and its recording."""

from __future__ import annotations

import re
from pathlib import Path

from avsbench_harness.data.avsbench.layout import AUDIO_SUFFIXES, Dataset
from avsbench_harness.data.avsbench.tables import Row
from avsbench_harness.data.clip import CLIP_ID_RULE, Clip, is_clip_id
from avsbench_harness.errors import UsageError
from avsbench_harness.tasks import Split, Task

#: Suffixes of frames.
FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

#: The split of all clips of such a folder.
SPLIT: Split = "test"


def open_clip_folder(root: Path, task: Task) -> Dataset | None:
    """Open a folder whose sub-folders are clips; ``None`` if no sub-folder holds frames.

    The frames of a clip are the pictures in its folder or in ``frames`` below it, one per second, in the
    order of the numbers in their names; its recording is the one wav, flac or ogg file in its folder. All
    clips are in the split test, without ground truth.

    Args:
        root: the folder.
        task: determines the largest number of frames.

    Raises:
        UsageError: a clip has too many frames, not one recording, or a name that clips cannot have.
    """
    root = root.expanduser().absolute()
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    clips = tuple(_clip(folder, task) for folder in folders if _frames(folder))
    if not clips:
        return None
    rows = tuple(Row(clip.id, SPLIT, clip.category, clip.subset) for clip in clips)
    return Dataset(task, root, root, root, False, rows, loose=clips)


def _clip(folder: Path, task: Task) -> Clip:
    frames = _frames(folder)
    if not is_clip_id(folder.name):
        raise UsageError(f"{folder} cannot be a clip: names of clips have {CLIP_ID_RULE}.")
    if len(frames) > task.frames:
        raise UsageError(
            f"{folder} has {len(frames)} frames, but clips of {task.name} have at most {task.frames}, one "
            "per second; `avsb segment` predicts longer videos."
        )
    recordings = sorted(path for path in folder.iterdir() if path.suffix.lower() in AUDIO_SUFFIXES)
    if len(recordings) != 1:
        raise UsageError(f"{folder} has {len(recordings)} recordings (wav, flac or ogg), but needs one.")
    subset = "v2" if task.semantic else task.name
    return Clip(folder.name, tuple(frames), (None,) * len(frames), recordings[0], None, "", subset)


def _frames(folder: Path) -> list[Path]:
    """The pictures of a clip's folder, else of ``frames`` below it, in the order of their numbers."""
    for place in (folder, folder / "frames"):
        if place.is_dir():
            found = [path for path in place.iterdir() if path.suffix.lower() in FRAME_SUFFIXES]
            if found:
                return sorted(found, key=_natural)
    return []


def _natural(path: Path) -> list[tuple[int, str]]:
    """Text and numbers of a name, so that 10 sorts behind 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.stem)]
