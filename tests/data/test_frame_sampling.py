"""Frame sampling of training clips, with their audio and ground truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avsbench_harness.data.clip import Clip
from avsbench_harness.data.frame_sampling import SampledAudio, even_frames, sample_files, sample_frames


@pytest.mark.parametrize(
    ("count", "wanted", "indices"),
    [(5, 5, [0, 1, 2, 3, 4]), (5, 1, [0]), (5, 2, [0, 2]), (10, 5, [0, 2, 4, 6, 8]), (3, 4, [0, 1, 2])],
)
def test_frames_are_evenly_spaced_and_start_with_the_first(
    count: int, wanted: int, indices: list[int]
) -> None:
    assert even_frames(count, wanted) == indices


def test_audio_masks_and_maskiges_are_sampled_with_their_frames() -> None:
    pictures = tuple(Path(f"{index}.png") for index in range(5))
    masks = (Path("m0.png"), None, Path("m2.png"), None, None)
    clip = Clip("a", pictures, masks, None, None, "bird", "s4")
    sound = np.arange(10, dtype=np.float32).reshape(5, 2) + 1
    (thin,) = sample_frames([clip], 2)
    assert thin.frames == (pictures[0], pictures[2])
    assert thin.masks == (Path("m0.png"), Path("m2.png"))
    assert thin.id == "a"
    sounds = SampledAudio({"a": sound}, [clip], 2)
    assert list(sounds) == ["a"]
    np.testing.assert_array_equal(sounds["a"], [[1, 2], [5, 6], [0, 0], [0, 0], [0, 0]])
    assert sound[1].any()  # what was given is left alone
    assert sample_files({"a": pictures}, [clip], 2) == {"a": [pictures[0], pictures[2]]}
