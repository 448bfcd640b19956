"""The data set that a command works on: the user's, or the small synthetic one that stands in for it."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from avsbench_harness.data.avsbench.layout import Dataset, open_dataset
from avsbench_harness.data.avsbench.tree import data_root
from avsbench_harness.files import cache_dir
from avsbench_harness.tasks import S4, Task

logger = logging.getLogger(__name__)


#: Clips per split and number of object kinds of the synthetic set that stands in where there is no data.
SMOKE_CLIPS = (16, 4, 8)
SMOKE_KINDS = 4
SMOKE_SEED = 0


def choose_dataset(task: Task, data: Path | None, *, singles: bool = False) -> Dataset:
    """The data set of a task in a data root, or the stand-in set.

    Args:
        task: which layout to read.
        data: data root; else ``AVSB_DATA_DIR``; else the stand-in set.
        singles: whether S4's clips are needed too; the stand-in set then has them beside the task's.
    """
    root = data_root(data)
    if root is not None:
        return open_dataset(root, task)
    dataset = stand_in(task)
    if singles and task is not S4:
        single = stand_in(S4).folder
        with suppress(FileExistsError):
            (dataset.root / single.name).symlink_to(single, target_is_directory=True)
    return dataset


def stand_in(task: Task) -> Dataset:
    """The small synthetic set for machines without data, made once and cached."""
    from avsbench_harness.data.synth import VERSION, write_synthetic  # much to load for a set that is there

    train, val, test = SMOKE_CLIPS
    name = f"{task.name}-{train}-{val}-{test}-kinds{SMOKE_KINDS}-seed{SMOKE_SEED}-v{VERSION}"
    root = cache_dir() / "synthetic" / name
    if not root.is_dir():
        logger.info(f"Making a small synthetic {task.name} set in {root}.")
        write_synthetic(root, task, SMOKE_CLIPS, SMOKE_SEED, kinds=SMOKE_KINDS)
    return open_dataset(root, task)
