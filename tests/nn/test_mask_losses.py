from __future__ import annotations

import math

import pytest
import torch

from avsbench_harness.nn.mask_losses import bce_loss, class_loss, mean_or_zero, squared_dice_loss

LOGITS = torch.tensor([[[0.0, math.log(3)], [-math.log(3), 0.0]]])  # probabilities 1/2, 3/4, 1/4, 1/2
TARGET = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])


def test_dice_by_hand() -> None:
    squares = 1 / 4 + 9 / 16 + 1 / 16 + 1 / 4
    expected = 1 - 2 * (3 / 4 + 1 / 2) / (squares + 1e-3 + 2 + 1e-3)
    assert float(squared_dice_loss(LOGITS, TARGET)) == pytest.approx(expected, rel=1e-6)


def test_dice_extremes() -> None:
    sure = torch.where(TARGET > 0, 50.0, -50.0)
    assert float(squared_dice_loss(sure, TARGET)) == pytest.approx(0.0, abs=1e-3)
    assert float(squared_dice_loss(-sure, TARGET)) == pytest.approx(1.0)
    assert float(squared_dice_loss(LOGITS, torch.zeros_like(TARGET))) == 1.0


def test_bce_by_hand() -> None:
    expected = -(math.log(1 / 2) + math.log(3 / 4) + math.log(3 / 4) + math.log(1 / 2)) / 4
    assert float(bce_loss(LOGITS, TARGET)) == pytest.approx(expected, rel=1e-6)


def test_class_loss_by_hand() -> None:
    logits = torch.zeros(1, 4, 1, 2)
    logits[0, 2, 0, 1] = math.log(5)
    expected = (math.log(4) - math.log(5 / 8)) / 2
    assert float(class_loss(logits, torch.tensor([[[0, 2]]]))) == pytest.approx(expected, rel=1e-6)


def test_one_value_per_mask() -> None:
    logits, target = LOGITS.repeat(3, 1, 1), TARGET.repeat(3, 1, 1)
    assert squared_dice_loss(logits, target).shape == bce_loss(logits, target).shape == (3,)


def test_mean_of_nothing_is_zero_with_a_gradient() -> None:
    values = torch.ones(4, requires_grad=True)
    nothing = mean_or_zero(values[:0])
    nothing.backward()
    assert float(nothing.detach()) == 0
    assert values.grad is not None
    assert float(mean_or_zero(torch.tensor([1.0, 2.0]))) == 1.5
