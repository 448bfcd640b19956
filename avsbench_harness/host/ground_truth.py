"""The ground truth of a competition with its public and private clips, and the sample submission."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.engine.solutions import pack_solution
from avsbench_harness.errors import UsageError
from avsbench_harness.host.definition import Definition
from avsbench_harness.launch.datasets import choose_dataset
from avsbench_harness.submission import Header, SubmissionWriter, read_solution
from avsbench_harness.tasks import get_task


def dataset_of(definition: Definition) -> Dataset:
    """The data set of a competition."""
    return choose_dataset(get_task(definition.task), Path(definition.data))


def pack_ground_truth(definition: Definition, path: Path) -> None:
    """Write the solution file of a competition, readable by its owner alone.

    Raises:
        UsageError: a listed private clip is not in the split, or one part has no clips.
    """
    parts = definition.parts
    dataset = dataset_of(definition)
    if parts.clips is not None:
        known = {clip.id for clip in dataset.clips(definition.split)}
        for clip in parts.clips:
            if clip not in known:
                raise UsageError(
                    f"The private clip '{clip}' is not in the {definition.split} split of the data set."
                )
    pack_solution(dataset, definition.split, path, private=parts.choice, seed=parts.seed)
    path.chmod(0o600)
    with read_solution(path) as solution:
        private = sum(clip.private for clip in solution.clips.values())
        if not 0 < private < len(solution.clips):
            path.unlink()
            raise UsageError(
                f"Of {len(solution.clips)} clips {private} would be private; both parts need clips. Change "
                "'parts' in challenge.yaml."
            )


def check_same_parts(first: Path, other: Path) -> None:
    """Refuse a solution with other clips or other private clips than the first one."""
    with read_solution(first) as ours, read_solution(other) as theirs:
        if {one.id: one.private for one in ours.clips.values()} != {
            one.id: one.private for one in theirs.clips.values()
        } or ours.shapes != {clip: theirs.shapes.get(clip) for clip in ours.shapes}:
            raise UsageError(
                f"{other} has other clips or other private clips than the ground truth of the competition; "
                "fix the labels in the data set, and rescore without --solution."
            )


def write_sample(solution: Path, path: Path) -> None:
    """Write the sample submission: background in every frame of every clip."""
    with read_solution(solution) as truth:
        header = Header(
            task=truth.header.task,
            split=truth.header.split,
            solution=truth.fingerprint,
            method="all background",
            size=truth.header.size,
        )
        with SubmissionWriter(path, header) as writer:
            for clip in sorted(truth.shapes):  # the order of the data set tells nothing, nor does this one
                writer.add(clip, np.zeros(truth.shapes[clip], np.uint8))
