from __future__ import annotations

import pytest
import torch

from avsbench_harness.nn.frames import restore_frames, select_frames


@pytest.mark.parametrize("padded", [[], [(0, 1), (1, 2)], [(b, t) for b in range(2) for t in range(3)]])
def test_restore_is_the_inverse_of_select_with_zeros_in_padded_frames(padded: list[tuple[int, int]]) -> None:
    values = torch.rand(2, 3, 4, 5) + 1
    valid = torch.ones(2, 3, dtype=torch.bool)
    for index in padded:
        valid[index] = False
    rows = select_frames(values, valid)
    assert torch.equal(rows, values[valid])
    assert torch.equal(restore_frames(rows, valid), values * valid[..., None, None])


def test_gradients_reach_the_valid_frames_only() -> None:
    values = torch.rand(2, 3, 4, requires_grad=True)
    valid = torch.tensor([[True, False, True], [False, False, True]])
    restore_frames(select_frames(values, valid), valid).sum().backward()
    assert torch.equal(values.grad, valid[..., None].expand(2, 3, 4).float())


def test_flat_frames_are_selected() -> None:
    assert select_frames(torch.arange(3), torch.tensor([True, False, True])).tolist() == [0, 2]
