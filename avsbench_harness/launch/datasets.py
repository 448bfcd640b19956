"""The data set of a command: the user's, or a generated one by its name; AVS-Mini by default."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from avsbench_harness.console import counter
from avsbench_harness.data.avsbench.clip_folder import open_clip_folder
from avsbench_harness.data.avsbench.layout import Dataset, open_dataset
from avsbench_harness.data.avsbench.tree import GENERATED, data_root, find_task_folder, generated_name
from avsbench_harness.files import cache_dir
from avsbench_harness.tasks import S4, Task

logger = logging.getLogger(__name__)


#: Clips per split and number of object kinds of the synthetic set.
SYNTHETIC_CLIPS = (16, 4, 8)
SYNTHETIC_KINDS = 4
SYNTHETIC_SEED = 0


def choose_dataset(task: Task, data: Path | None, *, singles: bool = False) -> Dataset:
    """Return the data set of a task in a data root, or a generated data set.

    Args:
        task: the task.
        data: data root, a folder of clips (see :mod:`.clip_folder`), ``mini`` (AVS-Mini) or ``synthetic``; by
            default ``AVSB_DATA_DIR``, then ``mini``.
        singles: whether S4's clips are needed too; a generated set then includes them.
    """
    root = data_root(data)
    if root is not None:
        loose = open_clip_folder(root, task) if find_task_folder(root, task) is None else None
        return loose or open_dataset(root, task)
    name = generated_name(data)
    dataset = generated_dataset(name, task)
    if singles and task is not S4:
        single = generated_dataset(name, S4).folder
        with suppress(FileExistsError):
            (dataset.root / single.name).symlink_to(single, target_is_directory=True)
    return dataset


def generated_root(name: str, task: Task) -> Path:
    """Return the folder of a generated data set of one task, which is made when it is first used.

    Args:
        name: ``mini`` or ``synthetic``.
        task: the task.
    """
    if name == "mini":
        from avsbench_harness.data.mini import VERSION as MINI_VERSION

        return cache_dir() / "mini" / f"{task.name}-v{MINI_VERSION}"
    from avsbench_harness.data.synth import VERSION  # slow to import, and rarely needed

    train, val, test = SYNTHETIC_CLIPS
    kinds = f"{train}-{val}-{test}-kinds{SYNTHETIC_KINDS}"
    return cache_dir() / "synthetic" / f"{task.name}-{kinds}-seed{SYNTHETIC_SEED}-v{VERSION}"


def generated_dataset(name: str, task: Task) -> Dataset:
    """Return a generated data set, which is written to the cache when it is first used.

    Args:
        name: ``mini`` or ``synthetic``.
        task: the task.
    """
    root = generated_root(name, task)
    if not root.is_dir():
        if name == "mini":
            _compose_mini(root, task)
        else:
            from avsbench_harness.data.synth import write_synthetic

            logger.info(f"Generating a small synthetic {task.name} set in {root}.")
            write_synthetic(root, task, SYNTHETIC_CLIPS, SYNTHETIC_SEED, kinds=SYNTHETIC_KINDS)
    return open_dataset(root, task)


def find_generated(task: Task, fingerprint: str) -> Dataset | None:
    """Return the generated data set in the cache with this fingerprint, or ``None``; nothing is generated."""
    for name in GENERATED:
        root = generated_root(name, task)
        if root.is_dir():
            dataset = open_dataset(root, task)
            if dataset.fingerprint() == fingerprint:
                return dataset
    return None


def _compose_mini(root: Path, task: Task) -> None:
    """Compose AVS-Mini of one task with a progress bar."""
    from avsbench_harness.data.mini import write_mini
    from avsbench_harness.data.mini.write import CLIPS

    logger.info(f"Composing AVS-Mini for {task.name} in {root}.")
    with counter("AVS-Mini", sum(CLIPS)) as advance:
        write_mini(root, [task], CLIPS, progress=lambda done, total: advance(1))
