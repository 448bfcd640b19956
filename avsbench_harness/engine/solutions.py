"""The ground truth of a data set's splits, packed once and cached."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.console import track
from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.data.images import read_clip_masks
from avsbench_harness.errors import MissingDataError, SubmissionError
from avsbench_harness.files import cache_dir, sha256_json
from avsbench_harness.submission import read_solution, write_solution
from avsbench_harness.tasks import MASK_SIZE, Split

#: Changes whenever the masks in a solution change for the same files.
VERSION = 1


def solution_file(dataset: Dataset, split: Split) -> Path:
    """The packed ground truth of a split, made if the cache does not have it."""
    key = {
        "data": dataset.fingerprints()[split],
        "task": dataset.task.name,
        "split": split,
        "version": VERSION,
    }
    path = _folder() / f"{dataset.task.name}-{split}-{sha256_json(key)[:16]}.npz"
    if not path.is_file():
        pack_solution(dataset, split, path)
    return path


def pack_solution(dataset: Dataset, split: Split, path: Path, *, private: float = 0.0, seed: int = 0) -> str:
    """Write a split's ground truth as a solution file and return its fingerprint.

    Args:
        dataset: whose masks.
        split: which clips; frames that carry no ground truth cannot be packed, so S4's and AVSS's
            train splits are refused.
        path: where to.
        private: fraction of the clips whose scores a host keeps back.
        seed: of that choice.
    """
    return write_solution(
        path,
        dataset.task.name,
        split,
        _clips(dataset, split),
        dataset=dataset.name,
        synthetic=dataset.synthetic,
        size=(MASK_SIZE, MASK_SIZE),
        private=private,
        seed=seed,
    )


def find_solution(fingerprint: str) -> Path | None:
    """The cached solution with that fingerprint, if there is one."""
    for path in sorted(_folder().glob("*.npz")):
        try:
            with read_solution(path) as solution:
                if solution.fingerprint == fingerprint:
                    return path
        except SubmissionError:
            continue  # a damaged file in the cache answers for nothing
    return None


def _folder() -> Path:
    return cache_dir() / "solutions"


def _clips(dataset: Dataset, split: Split) -> Iterator[tuple[str, NDArray[np.uint8], str]]:
    clips = dataset.clips(split)
    if not clips:
        raise MissingDataError(f"The {split} split of {dataset.root} has no clips.")
    for clip in track(clips, f"ground truth of {split}"):
        masks, annotated = read_clip_masks(clip, dataset.task, MASK_SIZE)
        if not annotated.all():
            raise MissingDataError(
                f"Clip {clip.id} has ground truth for {int(annotated.sum())} of {len(annotated)} frames, so "
                f"the {split} split cannot be scored; use val or test."
            )
        yield clip.id, masks, clip.subset
