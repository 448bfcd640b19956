"""Splits without ground truth: which masks are there, and the fingerprint that submissions must carry."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.data.clip import Clip
from avsbench_harness.errors import UsageError
from avsbench_harness.files import read_json
from avsbench_harness.tasks import Split

#: File of a data root with the fingerprints of ground truth that is not in it.
FINGERPRINTS = "solutions.json"


def is_labelled(clips: Sequence[Clip]) -> bool:
    """Whether a split has ground truth for every frame, so that it can be scored.

    A split of which any mask is on disk must have all of them; that some are missing is found when they are
    read. Unannotated frames, as in the train splits of S4 and AVSS, make a split unlabelled.
    """
    masks = [mask for clip in clips for mask in clip.masks]
    return None not in masks and any(mask is not None and mask.is_file() for mask in masks)


def without_masks(clips: Sequence[Clip]) -> list[Clip]:
    """Return the clips without annotated frames."""
    return [replace(clip, masks=(None,) * len(clip.frames)) for clip in clips]


def stated_fingerprint(dataset: Dataset, split: Split) -> str:
    """The fingerprint of a split's ground truth by the data root's ``solutions.json``; empty without one.

    Raises:
        UsageError: the file is malformed.
    """
    for folder in (dataset.folder, dataset.root):
        path = folder / FINGERPRINTS
        if not path.is_file():
            continue
        values = read_json(path)
        found = values.get(dataset.task.name, {}) if isinstance(values, dict) else None
        stated = found.get(split, "") if isinstance(found, dict) else None
        if not isinstance(stated, str) or not re.fullmatch("([0-9a-f]{64})?", stated):
            raise UsageError(
                f'{path} must be like {{"{dataset.task.name}": {{"{split}": "<64 hexadecimal digits>"}}}}.'
            )
        return stated
    return ""
