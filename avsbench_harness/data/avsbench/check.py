"""The check of a data root: opens every file and reports all faults."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from avsbench_harness.data.audio.logmel import read_log_mel_pickle
from avsbench_harness.data.audio.waveform import find_damage, find_wrong_length, read_audio
from avsbench_harness.data.avsbench.labels import explain_classes
from avsbench_harness.data.avsbench.layout import Dataset, open_dataset, table_name
from avsbench_harness.data.avsbench.report import Count, Fault, FaultKind, Report, SplitCounts, TaskReport
from avsbench_harness.data.avsbench.tree import (
    find_synthetic_marker,
    find_task_folder,
    found_tasks,
    found_tree,
)
from avsbench_harness.data.clip import Clip
from avsbench_harness.data.errors import BadFileError, MaskValueError, UnreadableImageError
from avsbench_harness.data.masks import decode_object_mask, decode_semantic_mask
from avsbench_harness.data.pixels import load_image
from avsbench_harness.errors import MissingDataError, UsageError, one_line
from avsbench_harness.files import read_json
from avsbench_harness.tasks import MASK_SIZE, SPLITS, TASKS, Split, Task


def check_dataset(
    root: Path,
    tasks: Sequence[Task] | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> Report:
    """Open every file of the tables' clips, and compare the numbers of clips with the official ones.

    Args:
        root: as for :func:`~avsbench_harness.data.avsbench.layout.open_dataset`.
        tasks: the required tasks; by default those that are found, or all if none is found.
        progress: called with (clips done, total clips) after every clip.
        workers: decoding threads; by default one per core.
    """
    root = root.expanduser().absolute()
    opened = [_open(root, task) for task in tasks or found_tasks(root) or TASKS.values()]
    total = sum(len(clips) for one in opened for clips in one.clips.values())
    done = 0
    reports = []
    pool = ThreadPoolExecutor(workers or os.cpu_count())
    try:
        for one in opened:
            results: dict[Split, list[_ClipCheck]] = {split: [] for split in one.clips}
            for split, clips in one.clips.items():
                for result in pool.map(partial(_ClipCheck, root, one.task), clips):
                    results[split].append(result)
                    done += 1
                    if progress is not None:
                        progress(done, total)
            reports.append(_report(root, one, results))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for queued clips
    return Report(root, reports)


def expected_clips(dataset: Dataset) -> dict[Split, int] | None:
    """Return the expected number of clips per split.

    This is the official number; for composed data that of their description, for synthetic data that of
    ``clips`` in their ``synthetic.json``: a number for each split, by name or in the order of the splits.
    ``None`` if that file does not cover this task.

    Raises:
        BadFileError: the file is malformed.
    """
    if not dataset.synthetic:
        return dataset.task.clips if dataset.composed is None else dataset.composed.clips
    marker = find_synthetic_marker(dataset.root, dataset.folder)
    if marker is None or marker.suffix != ".json":
        return None
    try:
        record = read_json(marker)
    except UsageError as error:
        raise BadFileError(marker, "is not valid JSON") from error
    if not isinstance(record, dict) or record.get("task") != dataset.task.name:
        return None
    clips = record.get("clips")
    if isinstance(clips, list) and len(clips) == len(SPLITS):
        clips = dict(zip(SPLITS, clips, strict=True))
    if not isinstance(clips, dict) or not all(isinstance(clips.get(split), int) for split in SPLITS):
        raise BadFileError(marker, f'has no "clips" with a number for each of {", ".join(SPLITS)}')
    return {split: clips[split] for split in SPLITS}


@dataclass(frozen=True)
class _Opened:
    """A task before its files are opened; ``clips`` is empty if the table could not be read."""

    task: Task
    folder: Path | None
    clips: dict[Split, list[Clip]]
    expected: dict[Split, int] | None
    faults: list[Fault]
    table: str


def _open(root: Path, task: Task) -> _Opened:
    folder = find_task_folder(root, task)
    clips: dict[Split, list[Clip]] = {}
    expected = None
    faults: list[Fault] = []
    table = "."
    try:
        dataset = open_dataset(root, task)
        clips = {split: dataset.clips(split) for split in SPLITS}
        expected = expected_clips(dataset)
        table = _relative(dataset.table, root)
        for split, number in (expected or {}).items():
            if len(clips[split]) != number:
                message = f"names {len(clips[split]):,} {split} clips; there should be {number:,}"
                faults.append(Fault(task.name, "count", table, message))
    except MissingDataError:
        faults.append(_missing_table(root, folder, task))
    except BadFileError as error:
        faults.append(Fault(task.name, "table", _relative(error.path, root), error.reason))
    return _Opened(task, folder, clips, expected, faults, table)


def _missing_table(root: Path, folder: Path | None, task: Task) -> Fault:
    """The fault of a task without a table."""
    if folder is None:
        message = f"contains no {task.title} data" if root.is_dir() else "is no folder"
        return Fault(task.name, "missing", ".", message)
    message = "is not there" if task.semantic else "is not there, nor a metadata.csv to rebuild it from"
    return Fault(task.name, "missing", _relative(folder / table_name(task), root), message)


def _report(root: Path, opened: _Opened, results: dict[Split, list[_ClipCheck]]) -> TaskReport:
    counts: dict[Split, SplitCounts] = {}
    for split, checks in results.items():
        clips = opened.clips[split]
        present = sum((check.present for check in checks), Counter[str]())
        counts[split] = SplitCounts(
            clips=Count(len(clips), opened.expected[split] if opened.expected else None),
            frames=Count(present["frame"], sum(len(clip.frames) for clip in clips)),
            masks=Count(present["mask"], sum(mask is not None for clip in clips for mask in clip.masks)),
            audio=Count(present["audio"], len(clips)),
        )
    checks = [check for split in results.values() for check in split]
    faults = [*opened.faults, *(fault for check in checks for fault in check.faults)]
    for split, found in results.items():
        if any(check.masks for check in found) and not any(check.objects for check in found):
            message = f"names {len(found):,} {split} clips, whose masks have no object; fetch the masks again"
            faults.append(Fault(opened.task.name, "empty", opened.table, message))
    zero_one = sum(check.zero_one for check in checks)
    notes = []
    if zero_one:
        notes.append(
            f"{zero_one:,} masks have the values 0 and 1. They are read as 0 and 255 here, but as empty by"
            " other codes."
        )
    return TaskReport(
        task=opened.task.name,
        folder=opened.folder,
        synthetic=find_synthetic_marker(root, opened.folder or root) is not None,
        tree=found_tree(opened.folder or root),
        counts=counts,
        faults=faults,
        warnings=[warning for check in checks for warning in check.warnings],
        notes=notes,
    )


class _ClipCheck:
    """The check of one clip's files.

    Attributes:
        faults: the faults of the files.
        warnings: what may be wrong with them.
        masks: number of masks that could be read.
        objects: whether one of them has an object.
        present: number of files found, by ``frame``, ``mask`` and ``audio``.
        zero_one: number of masks with the values 0 and 1.
    """

    def __init__(self, root: Path, task: Task, clip: Clip) -> None:
        self._root, self._task = root, task
        self.faults: list[Fault] = []
        self.warnings: list[Fault] = []
        self.masks = 0
        self._classes: set[int] = set()
        self.present: Counter[str] = Counter()
        self.zero_one = 0
        for frame, mask in zip(clip.frames, clip.masks, strict=True):
            picture = self._image(frame, "frame")
            # S4 and MS3 are square; AVSS frames have any size, and their masks have the same.
            size = (picture.size if picture else None) if task.semantic else (MASK_SIZE, MASK_SIZE)
            if picture is not None:
                self._size(frame, picture, size)
            if mask is not None:
                self._mask(mask, size)
        if task.semantic:
            self._compare_classes(clip)
        if clip.audio is not None:
            self._audio(clip.audio, len(clip.frames))
        if clip.logmel is not None:  # it was listed in its folder
            self.present["audio"] += clip.audio is None
            self._logmel(clip.logmel)

    @property
    def objects(self) -> bool:
        """Whether a mask has an object."""
        return bool(self._classes - {0})

    def _compare_classes(self, clip: Clip) -> None:
        """Compare the classes of the masks with those that the table lists."""
        folder = next((mask.parent for mask in clip.masks if mask is not None), None)
        colours = folder is None or folder.name != "labels_semantic"
        explained = explain_classes(self._classes, clip.category, colours=colours)
        if explained is not None and folder is not None:
            message, certain = explained
            fault = Fault(self._task.name, "classes", _relative(folder, self._root), message)
            (self.faults if certain else self.warnings).append(fault)

    def _fault(self, kind: FaultKind, path: Path, message: str) -> None:
        self.faults.append(Fault(self._task.name, kind, _relative(path, self._root), message))

    def _image(self, path: Path, what: str) -> Image.Image | None:
        try:
            image = load_image(path)
        except MissingDataError:
            self._fault("missing", path, "is not there")
            return None
        except UnreadableImageError as error:
            self._fault("unreadable", path, error.reason)
            image = None
        self.present[what] += 1
        return image

    def _size(self, path: Path, image: Image.Image, expected: tuple[int, int] | None) -> None:
        if expected is not None and image.size != expected:
            width, height = image.size
            self._fault("size", path, f"has {width}x{height} pixels instead of {expected[0]}x{expected[1]}")

    def _mask(self, path: Path, size: tuple[int, int] | None) -> None:
        image = self._image(path, "mask")
        if image is None:
            return
        self._size(path, image, size)
        try:
            if self._task.semantic:
                mask = decode_semantic_mask(image, path)
            else:
                mask, zero_one = decode_object_mask(image, path)
                self.zero_one += zero_one
            self.masks += 1
            self._classes.update(np.flatnonzero(np.bincount(mask.ravel())).tolist())
        except MaskValueError as error:
            self._fault("colour", path, error.reason)

    def _audio(self, path: Path, seconds: int) -> None:
        if not path.is_file():
            self._fault("missing", path, "is not there")
            return
        self.present["audio"] += 1
        try:
            samples, rate = read_audio(path)
        except UsageError as error:
            self._fault("unreadable", path, _without_path(error, path))
            return
        damage = find_damage(path, samples)
        if damage is not None:
            self._fault("audio", path, damage)
        length = find_wrong_length(samples, rate, seconds)
        if length is not None:
            self.warnings.append(Fault(self._task.name, "audio", _relative(path, self._root), length))

    def _logmel(self, path: Path) -> None:
        try:
            read_log_mel_pickle(path)
        except UsageError as error:
            self._fault("unreadable", path, _without_path(error, path))


def _without_path(error: UsageError, path: Path) -> str:
    """The message of an error, without the path in front and the full stop."""
    return one_line(error).removeprefix(f"{path} ").removesuffix(".")


def _relative(path: Path, root: Path) -> str:
    """A path relative to the data root, with forward slashes; a table may lie above the root."""
    return Path(os.path.relpath(path, root)).as_posix()
