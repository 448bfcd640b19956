"""The description of a data root, from its tables and file sizes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsbench_harness.data.avsbench.layout import open_dataset
from avsbench_harness.data.avsbench.tree import found_tasks
from avsbench_harness.errors import MissingDataError
from avsbench_harness.files import sha256_json
from avsbench_harness.tasks import SPLITS, TASKS, Split, Task

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class SplitInfo:
    """One split: numbers of clips, frames and annotated frames, and the split's fingerprint."""

    clips: int
    frames: int
    annotated: int
    fingerprint: str


@dataclass(frozen=True)
class TaskInfo:
    """One task of a data root; ``name`` and ``fingerprint`` are the data set's."""

    task: str
    name: str
    folder: str
    table: str
    synthetic: bool
    fingerprint: str
    splits: dict[Split, SplitInfo]

    def to_json(self) -> dict[str, Any]:
        """The attributes as JSON values."""
        return asdict(self)


def describe_dataset(root: Path, tasks: Sequence[Task] | None = None) -> list[TaskInfo]:
    """Describe the tasks (by default all) under a data root, without decoding any file.

    Raises:
        MissingDataError: none of the tasks is found, or a table is missing.
        UsageError: a table is malformed.
    """
    root = root.expanduser().absolute()
    chosen = tasks or found_tasks(root)
    if not chosen:
        raise MissingDataError(
            f"{root} contains none of the tasks {', '.join(TASKS)}."
            f" `avsb data check {root}` shows the expected trees."
        )
    return [_describe(root, task) for task in chosen]


def _describe(root: Path, task: Task) -> TaskInfo:
    dataset = open_dataset(root, task)
    fingerprints = dataset.fingerprints()
    splits: dict[Split, SplitInfo] = {}
    for split in SPLITS:
        clips = dataset.clips(split)
        splits[split] = SplitInfo(
            clips=len(clips),
            frames=sum(len(clip.frames) for clip in clips),
            annotated=sum(mask is not None for clip in clips for mask in clip.masks),
            fingerprint=fingerprints[split],
        )
    return TaskInfo(
        task=task.name,
        name=dataset.name,
        folder=str(dataset.folder),
        table=str(dataset.table),
        synthetic=dataset.synthetic,
        fingerprint=sha256_json(fingerprints),
        splits=splits,
    )


def render_description(infos: Sequence[TaskInfo]) -> Table:
    """Return a ``rich`` table with one row per split; fingerprints are shortened to 12 digits."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in ("task", "data", "split"):
        table.add_column(column)
    for column in ("clips", "frames", "annotated"):
        table.add_column(column, justify="right")
    table.add_column("fingerprint")
    for info in infos:
        name = Text("SYNTHETIC" if info.synthetic else info.name)
        for split, part in info.splits.items():
            table.add_row(
                info.task,
                name,
                split,
                f"{part.clips:,}",
                f"{part.frames:,}",
                f"{part.annotated:,}",
                part.fingerprint[:12],
            )
    return table
