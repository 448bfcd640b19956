"""CATR as released: frames."""

from __future__ import annotations

import pytest
import torch
from avsbench_methods.catr.frames import Frames


@pytest.mark.parametrize("valid", [[[1, 1], [1, 1]], [[0, 1], [1, 0]], [[1, 1], [1, 0]]])
def test_frames_are_packed_and_unpacked(valid: list[list[int]]) -> None:
    exists = torch.tensor(valid, dtype=torch.bool)
    frames = Frames(exists)
    values = torch.arange(4).view(2, 2, 1)
    row = frames.pack(values)
    assert row[:, 0].tolist() == [int(value) for value in values[..., 0][exists]]
    assert torch.equal(frames.unpack(row), values * exists[..., None])
    assert [frames.clip[first].item() for first in frames.first] == [0, 1]
