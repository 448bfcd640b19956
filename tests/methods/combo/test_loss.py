"""COMBO as released: loss."""

from __future__ import annotations

import torch
from avsbench_methods.combo.loss import FeatureProducts, consistency_loss, frame_targets, neighbours


def test_all_classes_at_once_and_silence_have_targets() -> None:
    mask = torch.arange(71).repeat_interleave(71)[: 71 * 71].view(1, 71, 71)
    (everything,) = frame_targets(mask, 71)
    assert everything.labels.tolist() == list(range(71))
    assert torch.equal(everything.masks.sum(dim=0), torch.ones(71, 71))
    (silence,) = frame_targets(torch.zeros(1, 4, 4, dtype=torch.long), 2)
    assert silence.labels.tolist() == [0]
    assert silence.masks.all()


def test_ignored_pixels_have_no_target_and_are_outside_all_masks() -> None:
    mask = torch.tensor([[[0, 1], [255, 255]]])
    (target,) = frame_targets(mask, 2)
    assert target.labels.tolist() == [0, 1]
    assert target.masks.tolist() == [[[1, 0], [0, 0]], [[0, 1], [0, 0]]]


def test_neighbours_stay_within_clips_and_chunks() -> None:
    valid = torch.tensor([[True] * 5 + [False] * 5, [True] * 10])
    earlier, later = neighbours(valid, 5)
    assert (later - earlier == 1).all()
    assert earlier.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13]
    assert neighbours(valid, None)[0].tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13]
    gap = torch.tensor([[True, False, True, True]])
    assert [part.tolist() for part in neighbours(gap, 5)] == [[1], [2]]


def test_consistency_without_pairs_is_zero() -> None:
    single = neighbours(torch.ones(3, 1, dtype=torch.bool), 5)
    distances = FeatureProducts.of(torch.randn(3, 4, 4, 4), single).distances(torch.randn(3, 2, 4))
    assert float(consistency_loss(distances)) == 0
