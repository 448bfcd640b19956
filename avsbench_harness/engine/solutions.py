"""Solutions: the ground truth of a data set's splits, packed once and cached."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.console import track
from avsbench_harness.data.avsbench.labels import explain_classes
from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.data.cache.eviction import make_room
from avsbench_harness.data.cache.store import ArrayStore, array_key
from avsbench_harness.data.images import read_clip_masks
from avsbench_harness.errors import AvsbError, MissingDataError, UsageError
from avsbench_harness.files import cache_dir, sweep_temporaries
from avsbench_harness.submission import read_solution, write_solution
from avsbench_harness.tasks import MASK_SIZE, Split

logger = logging.getLogger(__name__)

#: Changes whenever the masks in a solution change for the same files.
VERSION = 1

# Collections whose solutions this process was given; it holds them against eviction until it ends.
_HELD: dict[Path, ArrayStore] = {}


def solution_file(dataset: Dataset, split: Split) -> Path:
    """Return the packed ground truth of a split; packed first if it is not cached or damaged.

    It is the only array of its collection, so that the collection's data file is a solution file.
    """
    key = array_key(data=dataset.fingerprints()[split], task=dataset.task.name, split=split, version=VERSION)
    store = ArrayStore(_folder() / f"{dataset.task.name}-{split}-{key[:16]}")
    if not store.is_intact(key, f"The solution of {split}"):
        store.open()
        damaged = not store.missing([key])
        with store.filling:
            if damaged or store.missing([key]):  # else another process packed it meanwhile
                _pack(dataset, split, store, key)
    return _hold(store)


def pack_solution(
    dataset: Dataset,
    split: Split,
    path: Path,
    *,
    private: float | Collection[str] = 0.0,
    seed: int = 0,
) -> str:
    """Write a split's ground truth as a solution file and return its fingerprint.

    Args:
        dataset: the data set.
        split: the split. Every frame must be annotated, so the train splits of S4 and AVSS are refused.
        path: the file to write.
        private: fraction of the clips whose scores a host keeps private, or their ids.
        seed: seed of the choice of a fraction of clips.

    Raises:
        MissingDataError: the split has no clips, or a frame is not annotated.
        UsageError: the masks of most clips hold classes that the table does not list.
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
    """Return the cached solution with that fingerprint, or ``None`` if there is none or it is damaged."""
    for folder in sorted(_folder().glob("*")):
        store = ArrayStore(folder)
        try:
            with read_solution(store.data) as solution:
                found = solution.fingerprint == fingerprint
        except AvsbError:
            continue  # missing or damaged
        if found and any(store.is_intact(key, "The solution") for key in store.stored_keys()):
            return _hold(store)
    return None


def _pack(dataset: Dataset, split: Split, store: ArrayStore, key: str) -> None:
    sweep_temporaries(store.folder)
    path = store.folder / "packed.npz"
    pack_solution(dataset, split, path)
    make_room(path.stat().st_size)
    store.store(key, np.memmap(path, np.uint8, "r"))
    path.unlink()


def _hold(store: ArrayStore) -> Path:
    _HELD[store.folder] = store
    return store.data


def _folder() -> Path:
    return cache_dir() / "solutions"


def _clips(dataset: Dataset, split: Split) -> Iterator[tuple[str, NDArray[np.uint8], str]]:
    clips = dataset.clips(split)
    if not clips:
        raise MissingDataError(f"The {split} split of {dataset.root} has no clips.")
    foreign: list[str] = []
    for clip in track(clips, f"ground truth of {split}"):
        masks, annotated = read_clip_masks(clip, dataset.task, MASK_SIZE)
        if not annotated.all():
            raise MissingDataError(
                f"Clip {clip.id} has ground truth for {int(annotated.sum())} of {len(annotated)} frames, so "
                f"the {split} split cannot be scored; use val or test."
            )
        if dataset.task.semantic and (found := explain_classes(np.unique(masks).tolist(), clip.category)):
            foreign.append(f"clip {clip.id} {found[0]}")
        yield clip.id, masks, clip.subset
    _report_foreign(dataset, split, foreign, len(clips))


def _report_foreign(dataset: Dataset, split: Split, foreign: Sequence[str], clips: int) -> None:
    """Log the clips whose masks hold classes that the table does not list; refuse a split of such clips."""
    if not foreign:
        return
    message = (
        f"The masks of {len(foreign)} of {clips} {split} clips of {dataset.root} hold other classes than "
        f"metadata.csv lists ({foreign[0]}); `avsb data check` lists them."
    )
    if 2 * len(foreign) > clips:
        raise UsageError(message)
    logger.warning(message)
