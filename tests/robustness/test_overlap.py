"""The overlap of two predictions, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from avsbench_harness.robustness.overlap import clip_overlaps, frame_overlaps
from avsbench_harness.submission import Header, SubmissionWriter, read_submission


def frames(*masks: list[int]) -> np.ndarray:
    """(T,2,2) from four values per frame."""
    return np.array(masks, np.uint8).reshape(-1, 2, 2)


def test_masks_are_compared_above_one_half() -> None:
    one = frames([255, 128, 127, 0], [0, 0, 0, 0], [127, 1, 0, 0], [255, 255, 255, 255])
    two = frames([128, 0, 200, 0], [0, 127, 0, 0], [0, 0, 0, 128], [128, 128, 128, 128])
    assert frame_overlaps(one, two, semantic=False).tolist() == [1 / 3, 1, 0, 1]


def test_labels_overlap_where_both_have_the_same_class() -> None:
    one = frames([1, 2, 0, 0], [0, 0, 0, 0], [3, 3, 0, 0])
    two = frames([1, 3, 4, 0], [0, 0, 0, 0], [4, 4, 0, 0])
    assert frame_overlaps(one, two, semantic=True).tolist() == [1 / 3, 1, 0]


@pytest.mark.parametrize("task", ["ms3", "avss"])
def test_clips_are_means_of_their_frames(tmp_path, task: str) -> None:
    values = 1 if task == "avss" else 255
    one = {"a": frames([1, 1, 0, 0], [1, 0, 0, 0]), "b": frames([1, 1, 1, 1])}
    two = {"a": frames([1, 0, 0, 0], [0, 0, 0, 0]), "b": frames([1, 1, 1, 1])}
    for name, clips in (("one", one), ("two", two)):
        with SubmissionWriter(
            tmp_path / f"{name}.npz", Header(task, "test", "0" * 64, "m", size=(2, 2))
        ) as writer:
            for clip, masks in clips.items():
                writer.add(clip, masks * np.uint8(values))
    with read_submission(tmp_path / "one.npz") as first, read_submission(tmp_path / "two.npz") as second:
        assert clip_overlaps(first, second, ["b", "a"]).tolist() == [1, 0.25]
