"""A task's data set on disk: its table and clips, without decoding any file.

Folders and file names are those of the released AVSBench, see :data:`.tree.EXPECTED`. Clips are lists of file
names derived from the table. Missing files are found when they are read, or by :mod:`.check`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from avsbench_harness.data.avsbench import tables
from avsbench_harness.data.avsbench.composed import Composed, read_composed
from avsbench_harness.data.avsbench.tables import Row
from avsbench_harness.data.avsbench.tree import expectation, find_metadata, find_synthetic_marker, task_folder
from avsbench_harness.data.clip import Clip
from avsbench_harness.errors import MissingDataError
from avsbench_harness.files import sha256_json
from avsbench_harness.tasks import MS3, S4, SPLITS, Split, Task

#: Suffixes of recordings in the order of preference; the released ones are wav.
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg")

#: Frames per clip in the parts of AVSBench-semantic.
SUBSET_FRAMES = {"v1s": 5, "v1m": 5, "v2": 10}


@dataclass(frozen=True)
class Dataset:
    """The clips of one task in one folder.

    Attributes:
        task: the task.
        root: the data root that was opened.
        folder: the task's folder in it (or the root itself).
        table: the csv file with the clips.
        synthetic: whether the data are marked as synthetic; every score on them is marked too.
        rows: the table, in its order.
        composed: the description of a composed data set, such as AVS-Mini.
        loose: the clips of a folder without a table, see :mod:`.clip_folder`.
    """

    task: Task
    root: Path
    folder: Path
    table: Path
    synthetic: bool
    rows: tuple[Row, ...] = field(repr=False)
    composed: Composed | None = None
    loose: tuple[Clip, ...] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """``synthetic``, or the name of a composed data set; else ``avsbench`` or ``custom``.

        It is ``avsbench`` if the table has the official number of clips.
        """
        if self.synthetic:
            return "synthetic"
        if self.composed is not None:
            return self.composed.name
        return "avsbench" if self.counts() == self.task.clips else "custom"

    def counts(self) -> dict[Split, int]:
        """Return the number of clips per split."""
        return {split: sum(row.split == split for row in self.rows) for split in SPLITS}

    def clips(self, split: Split) -> list[Clip]:
        """Return the clips of a split in the table's order. Their files may be missing."""
        rows = [row for row in self.rows if row.split == split]
        if self.loose is not None:
            return list(self.loose) if rows else []
        return _CLIPS[self.task.name](self.folder, rows)

    def fingerprint(self) -> str:
        """Return the SHA-256 (64 hexadecimal digits) over the fingerprints of the splits."""
        return sha256_json(self.fingerprints())

    def fingerprints(self) -> dict[Split, str]:
        """Return the SHA-256 (64 hexadecimal digits) of each split.

        It covers the clips' ids, split and order (training order and batch-wise metrics depend on it), and
        the name and size of each of their files; the size of a missing file is ``null``. Contents are not
        read, and the location of the data does not matter. In composed data sets the digest of the content
        in their description replaces the sizes, which depend on the version of the image library.
        """
        return {split: self._split_fingerprint(split) for split in SPLITS}

    def _split_fingerprint(self, split: Split) -> str:
        digest = hashlib.sha256()
        content = None if self.composed is None else self.composed.digest(self.task, split)
        if content is not None:
            digest.update(content.encode() + b"\n")
        for clip in self.clips(split):
            files = [
                path for path in (*clip.frames, *clip.masks, clip.audio, clip.logmel) if path is not None
            ]
            signatures = [(self._relative(path), _size(path) if content is None else 0) for path in files]
            line = [clip.id, split, signatures]
            digest.update(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        return digest.hexdigest()

    def _relative(self, path: Path) -> str:
        return str(path)[len(str(self.folder)) + 1 :].replace(os.sep, "/")


def _size(path: Path) -> int | None:
    """The size of a file, bytes; ``None`` if it is missing."""
    try:
        return os.stat(str(path)).st_size  # noqa: PTH116 - twice as fast as through the Path
    except OSError:
        return None


def open_dataset(root: Path, task: Task) -> Dataset:
    """Find a task under a data root and read its table.

    Args:
        root: the folder with ``Single-source``, ``Multi-sources`` and ``AVSBench_semantic`` (or with
            ``AVSBench_object`` and ``AVSS``, as in other codes), or the task's own folder.
        task: the task.

    Raises:
        MissingDataError: there is no such folder, or no table; the message shows the expected tree.
        BadFileError: the table or the description of a composed data set is malformed.
    """
    root = root.expanduser().absolute()
    folder = task_folder(root, task)
    table, rows = _read_table(root, folder, task)
    synthetic = find_synthetic_marker(root, folder) is not None
    composed = read_composed(folder, folder.parent, root)
    return Dataset(task, root, folder, table, synthetic, tuple(rows), composed)


@dataclass(frozen=True)
class _TableFile:
    """The readers of a task's own table, and of ``metadata.csv`` if that table is missing."""

    name: str
    read: Callable[[Path], list[Row]]
    rebuild: Callable[[Path], list[Row]]


_TABLES = {
    "s4": _TableFile("s4_meta_data.csv", tables.read_s4, tables.rebuild_s4),
    "ms3": _TableFile("ms3_meta_data.csv", tables.read_ms3, tables.rebuild_ms3),
    "avss": _TableFile("metadata.csv", tables.read_avss, tables.read_avss),
}


def table_name(task: Task) -> str:
    """Return the file name of a task's own table."""
    return _TABLES[task.name].name


def _read_table(root: Path, folder: Path, task: Task) -> tuple[Path, list[Row]]:
    own = _TABLES[task.name]
    path = folder / own.name
    if path.is_file():
        return path, own.read(path)
    metadata = find_metadata(root, folder)
    if metadata is None:
        raise MissingDataError(f"{folder} has no table {own.name}.\n{expectation(task)}")
    return metadata, own.rebuild(metadata)


def _s4_clips(folder: Path, rows: Sequence[Row]) -> list[Clip]:
    data = folder / "s4_data"
    audio = _audio_finder(data)
    clips = []
    for row in rows:
        place = f"{row.split}/{row.category}"
        clip = f"{place}/{row.id}/{row.id}"
        annotated = 1 if row.split == "train" else S4.frames
        clips.append(
            _clip(
                row,
                [data / f"visual_frames/{clip}_{k}.png" for k in range(1, S4.frames + 1)],
                [data / f"gt_masks/{clip}_{k}.png" for k in range(1, annotated + 1)],
                *audio(place, row.id),
            )
        )
    return clips


def _ms3_clips(folder: Path, rows: Sequence[Row]) -> list[Clip]:
    data = folder / "ms3_data"
    audio = _audio_finder(data)
    numbers = range(1, MS3.frames + 1)
    return [
        _clip(
            row,
            [data / f"visual_frames/{row.id}/{row.id}.mp4_{k}.png" for k in numbers],
            [data / f"gt_masks/{row.split}/{row.id}/{row.id}_{k}.png" for k in numbers],
            *audio(row.split, row.id),
        )
        for row in rows
    ]


def _avss_clips(folder: Path, rows: Sequence[Row]) -> list[Clip]:
    labels, recording = _avss_names(folder, rows)
    clips = []
    for row in rows:
        place = folder / row.subset / row.id
        frames = SUBSET_FRAMES[row.subset]
        annotated = 1 if (row.subset, row.split) == ("v1s", "train") else frames
        clips.append(
            _clip(
                row,
                [place / f"frames/{k}.jpg" for k in range(frames)],
                [place / f"{labels}/{k}.png" for k in range(annotated)],
                place / recording,
                None,
            )
        )
    return clips


_CLIPS = {"s4": _s4_clips, "ms3": _ms3_clips, "avss": _avss_clips}


def _clip(
    row: Row, frames: Sequence[Path], masks: Sequence[Path], audio: Path | None, logmel: Path | None
) -> Clip:
    """A clip whose first frames are annotated."""
    not_annotated = (None,) * (len(frames) - len(masks))
    return Clip(row.id, tuple(frames), (*masks, *not_annotated), audio, logmel, row.category, row.subset)


def _audio_finder(data: Path) -> Callable[[str, str], tuple[Path | None, Path | None]]:
    """Return a function (place, name) -> (recording, log-mel pickle) that lists each folder once.

    For a clip with neither it returns the expected name of the wav file.
    """
    listing = cache(_names_in)

    def find(place: str, name: str) -> tuple[Path | None, Path | None]:
        recordings, pickles = data / "audio_wav" / place, data / "audio_log_mel" / place
        logmel = pickles / f"{name}.pkl" if f"{name}.pkl" in listing(pickles) else None
        present = [name + suffix for suffix in AUDIO_SUFFIXES if name + suffix in listing(recordings)]
        if present or logmel is None:
            return recordings / (present[0] if present else f"{name}.wav"), logmel
        return None, logmel

    return find


def _avss_names(folder: Path, rows: Iterable[Row]) -> tuple[str, str]:
    """The names of the mask folder and of the recording, which are the same in all clips.

    They are read from the first clip on disk: listing all 11,356 folders is slow on a network disk.
    """
    for row in rows:
        names = _names_in(folder / row.subset / row.id)
        if names:
            recordings = [f"audio{suffix}" for suffix in AUDIO_SUFFIXES if f"audio{suffix}" in names]
            semantic = "labels_semantic" in names and "labels_rgb" not in names
            return ("labels_semantic" if semantic else "labels_rgb"), (recordings or ["audio.wav"])[0]
    return "labels_rgb", "audio.wav"


def _names_in(folder: Path) -> frozenset[str]:
    """The names in a folder; none if it does not exist."""
    try:
        return frozenset(os.listdir(folder))  # noqa: PTH208 - names are all that is needed
    except OSError:
        return frozenset()
