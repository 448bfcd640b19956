"""Padding and its inverse."""

from __future__ import annotations

import pytest
import torch

from avsbench_harness.data.padding import content_size, pad_frames, pad_to_square, remove_padding


def test_predictions_are_cropped_to_the_frame() -> None:
    values = torch.arange(2 * 32 * 32).view(2, 32, 32)
    assert torch.equal(remove_padding(values, (64, 64), 64), values)
    assert torch.equal(remove_padding(values, (64, 32), 64), values[:, :16])
    assert torch.equal(remove_padding(values, (48, 64), 64), values[:, :, :24])
    assert remove_padding(values, (1, 64), 64).shape == (2, 32, 1)


@pytest.mark.parametrize(("width", "height"), [(90, 60), (50, 100), (64, 64), (1000, 1)])
def test_remove_padding_inverts_pad_to_square(width: int, height: int) -> None:
    content = content_size(width, height, 64)
    frame = torch.randint(0, 255, (3, content[1], content[0]))
    padded = pad_to_square(frame, 64, fill=255)
    assert padded.shape == (3, 64, 64)
    assert torch.equal(remove_padding(padded, content, 64), frame)
    assert int((padded == 255).sum()) == 3 * (64 * 64 - content[0] * content[1])


def test_padded_frames_are_zero() -> None:
    padded = pad_frames(torch.ones(3, 2), 5)
    assert padded.tolist() == [[1, 1]] * 3 + [[0, 0]] * 2
    assert pad_frames(torch.ones(3, 2), 2).tolist() == [[1, 1]] * 2
