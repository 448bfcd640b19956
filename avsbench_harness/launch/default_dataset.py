"""The data set of a command: the user's, or a small synthetic one by default."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from avsbench_harness.data.avsbench.layout import Dataset, open_dataset
from avsbench_harness.data.avsbench.tree import data_root
from avsbench_harness.files import cache_dir
from avsbench_harness.tasks import S4, Task

logger = logging.getLogger(__name__)


#: Clips per split and number of object kinds of the default synthetic set.
SMOKE_CLIPS = (16, 4, 8)
SMOKE_KINDS = 4
SMOKE_SEED = 0


def choose_dataset(task: Task, data: Path | None, *, singles: bool = False) -> Dataset:
    """The data set of a task in a data root, or the default synthetic set.

    Args:
        task: the task.
        data: data root; defaults to ``AVSB_DATA_DIR``, then to the default synthetic set.
        singles: whether S4's clips are needed too; the synthetic set then includes them.
    """
    root = data_root(data)
    if root is not None:
        return open_dataset(root, task)
    dataset = synthetic_dataset(task)
    if singles and task is not S4:
        single = synthetic_dataset(S4).folder
        with suppress(FileExistsError):
            (dataset.root / single.name).symlink_to(single, target_is_directory=True)
    return dataset


def synthetic_root(task: Task) -> Path:
    """The folder of the default synthetic set, which is made when it is first used."""
    from avsbench_harness.data.synth import VERSION  # slow to import, and rarely needed

    train, val, test = SMOKE_CLIPS
    name = f"{task.name}-{train}-{val}-{test}-kinds{SMOKE_KINDS}-seed{SMOKE_SEED}-v{VERSION}"
    return cache_dir() / "synthetic" / name


def synthetic_dataset(task: Task) -> Dataset:
    """The default synthetic set, generated once and cached."""
    root = synthetic_root(task)
    if not root.is_dir():
        from avsbench_harness.data.synth import write_synthetic

        logger.info(f"Generating a small synthetic {task.name} set in {root}.")
        write_synthetic(root, task, SMOKE_CLIPS, SMOKE_SEED, kinds=SMOKE_KINDS)
    return open_dataset(root, task)
