"""Checks of a planned run on this machine before it starts: its data files and its output folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from avsbench_harness.data.audio.logmel import audio_file
from avsbench_harness.data.maskige import SOURCES
from avsbench_harness.engine.inputs import maskige_paths, training_clips, used_clips
from avsbench_harness.engine.run import Run
from avsbench_harness.errors import MissingDataError
from avsbench_harness.tasks import SPLITS, Split

#: What this process has found complete.
_complete: set[tuple[str | None, ...]] = set()


def check_run(run: Run, splits: Sequence[Split] = SPLITS, *, thorough: bool = False) -> None:
    """Check that the files of the run's data exist, and that its output can be written.

    Args:
        run: the run; one with given weights needs the test split only.
        splits: the splits that the command reads.
        thorough: look for the maskiges of every clip. Those in the cache are named by the content of their
            frames, which takes a while, so that else only the first clip of a split is looked at.

    Raises:
        MissingDataError: a file is missing.
        OSError: the output folder cannot be written.
    """
    check_output(run.out)
    recipe, data = run.recipe, run.spec.data
    splits = ("test",) if run.spec.weights else splits
    key = (str(run.dataset.root), data.fingerprint, recipe.maskige, recipe.supplement, str(thorough), *splits)
    if key in _complete:
        return
    for split in splits:
        _check_split(run, split, thorough)
    _complete.add(key)


def check_output(out: Path) -> None:
    """Check that ``out``, and the folders in it that runs write to, can be written; nothing is created.

    Raises:
        OSError: they cannot; the error names the path.
    """
    for folder in (out, *(out / name for name in ("runs", "submissions", "results"))):
        while not os.path.lexists(folder):
            folder = folder.parent
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        if not os.access(folder, os.W_OK | os.X_OK):
            read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
            code = errno.EROFS if read_only else errno.EACCES
            raise OSError(code, os.strerror(code), str(folder))


def _check_split(run: Run, split: Split, thorough: bool) -> None:
    dataset, source = run.dataset, run.recipe.maskige
    clips = training_clips(run) if split == "train" else dataset.clips(split)
    if not clips:
        raise MissingDataError(f"The {split} split of {dataset.root} has no clips.")
    if not any(mask.is_file() for clip in clips for mask in clip.masks if mask is not None):
        raise MissingDataError(
            f"The {split} split of {dataset.root} has no masks, so that it cannot be used for training or "
            "scores; `avsb predict` needs none."
        )
    for clip in clips:
        audio_file(clip)
        missing = [path for path in (*clip.frames, *clip.masks) if path is not None and not path.is_file()]
        if missing:
            raise MissingDataError(
                f"Clip '{clip.id}' of the {split} split: there is no file {missing[0]}; "
                f"`avsb data check {dataset.root}` lists all missing files."
            )
    if source is not None:
        used = used_clips(run, split)
        maskige_paths(dataset, split, source, used if thorough or source == SOURCES[0] else used[:1])
