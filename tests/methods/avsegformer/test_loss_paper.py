"""AVSegFormer's loss, compared with the paper's equations."""

from __future__ import annotations

import pytest
import torch
from avsbench_methods.avsegformer.loss import class_dice_loss, segmentation_loss


def test_dice_of_classes_by_hand() -> None:
    # Two pixels, three classes; the frame shows classes 0 and 2.
    p = torch.tensor([[0.5, 0.2], [0.3, 0.2], [0.2, 0.6]], dtype=torch.float64)
    logits, truth = p.log()[None, :, None], torch.tensor([[[0, 2]]])
    found = class_dice_loss(logits, truth, epsilon=0.0)
    zero = 1 - 2 * 0.5 / (0.25 + 0.04 + 1)
    two = 1 - 2 * 0.6 / (0.04 + 0.36 + 1)
    assert float(found[0]) == pytest.approx((zero + two) / 2)
    assert float(segmentation_loss(logits, truth, "dice")) == pytest.approx((zero + two) / 2, abs=2e-3)
