from __future__ import annotations

import pytest
import torch

import avsbench_harness as avsb


def batch(**changes) -> avsb.Batch:
    values = {"images": torch.zeros(2, 5, 3, 8, 6), "audio": torch.zeros(2, 5, 128), **changes}
    return avsb.Batch(**values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(2, 5, 8, 6)}, r"images must be \(B,T,3,H,W\), got \(2, 5, 8, 6\)"),
        ({"audio": torch.zeros(2, 4, 128)}, r"audio must be \(2,5,128\), got \(2, 4, 128\)"),
        ({"valid": torch.ones(2, 4, dtype=torch.bool)}, r"valid must be \(2, 5\), got \(2, 4\)"),
        ({"masks": torch.zeros(2, 5, 8, 8)}, r"masks must be \(2, 5, 8, 6\)"),
        ({"maskige": torch.zeros(2, 5, 8, 6)}, r"maskige must be \(2, 5, 3, 8, 6\)"),
    ],
)
def test_shapes_are_checked(changes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batch(**changes)


def test_annotated_frames_are_valid() -> None:
    assert batch().valid_frames().all()
    assert batch().annotated_frames().all()
    valid = torch.tensor([[True] * 3 + [False] * 2] * 2)
    annotated = torch.tensor([[True] * 4 + [False]] * 2)
    both = batch(valid=valid, annotated=annotated)
    assert torch.equal(both.annotated_frames(), valid)
    assert torch.equal(batch(valid=valid).annotated_frames(), valid)


def test_moving_keeps_absent_fields_absent() -> None:
    moved = batch(masks=torch.zeros(2, 5, 8, 6, dtype=torch.int64)).to("meta")
    assert moved.images.device.type == "meta"
    assert moved.masks is not None
    assert moved.masks.device.type == "meta"
    assert moved.valid is None
    assert batch().select(slice(1, 2)).shape == (1, 5, 8, 6)
    assert batch().with_audio(torch.ones(2, 5, 128)).audio.sum() == 2 * 5 * 128


def test_a_batch_without_masks_has_no_loss() -> None:
    with pytest.raises(ValueError, match="has no masks"):
        batch().ground_truth()
