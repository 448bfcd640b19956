from __future__ import annotations

import numpy as np
import torch

from avsbench_harness.engine.predict import to_masks
from avsbench_harness.tasks import AVSS, MS3, S4


def test_probabilities_of_the_mask_size_are_unchanged() -> None:
    values = torch.rand(5, 224, 224, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(to_masks(values, S4), values.numpy())


def test_other_sizes_are_resized_within_range() -> None:
    values = torch.ones(2, 96, 64)
    values[1] = 0
    masks = to_masks(values, MS3)
    assert masks.shape == (2, 224, 224)
    assert masks.dtype == np.float32
    assert (masks[0] == 1).all()
    assert (masks[1] == 0).all()
    assert to_masks(values, MS3, 512).shape == (2, 512, 512)


def test_labels_take_the_lowest_class_on_ties_after_softmax() -> None:
    scores = torch.zeros(1, 71, 224, 224)
    scores[0, 12] = 0.01
    scores[0, 64] = float(np.nextafter(np.float32(0.01), np.float32(1)))
    assert scores.argmax(1).unique().tolist() == [64]
    assert np.unique(to_masks(scores, AVSS)).tolist() == [12]
