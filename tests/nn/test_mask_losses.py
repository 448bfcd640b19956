from __future__ import annotations

import math

import pytest
import torch

from avsbench_harness.nn.mask_losses import (
    bce_loss,
    class_loss,
    dice_loss,
    mean_or_zero,
    sigmoid_focal_loss,
    squared_dice_loss,
)

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


def test_plain_dice_by_hand() -> None:
    expected = 1 - (2 * (3 / 4 + 1 / 2) + 1) / (2 + 2 + 1)
    assert float(dice_loss(LOGITS, TARGET)) == pytest.approx(expected, rel=1e-6)
    expected = 1 - 2 * (3 / 4 + 1 / 2) / (2 + 2)
    assert float(dice_loss(LOGITS, TARGET, smooth=0)) == pytest.approx(expected, rel=1e-6)


def test_plain_dice_of_an_empty_mask_decreases_with_the_area() -> None:
    empty = torch.zeros_like(TARGET)
    assert float(dice_loss(LOGITS, empty)) == pytest.approx(1 - 1 / 3, rel=1e-6)
    assert float(dice_loss(LOGITS - 50, empty)) == pytest.approx(0.0, abs=1e-6)


def test_focal_by_hand() -> None:
    # Foreground: probabilities 3/4 and 1/2 of the true class. Background: 1/2 and 1/4 are predicted.
    terms = (
        0.25 * (1 / 4) ** 2 * -math.log(3 / 4),
        0.25 * (1 / 2) ** 2 * -math.log(1 / 2),
        0.75 * (1 / 2) ** 2 * -math.log(1 / 2),
        0.75 * (1 / 4) ** 2 * -math.log(3 / 4),
    )
    assert float(sigmoid_focal_loss(LOGITS, TARGET)) == pytest.approx(sum(terms) / 4, rel=1e-6)


def test_focal_without_focus_is_half_of_bce() -> None:
    focal = sigmoid_focal_loss(LOGITS, TARGET, alpha=0.5, gamma=0)
    torch.testing.assert_close(focal, bce_loss(LOGITS, TARGET) / 2)


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
    for loss in (squared_dice_loss, dice_loss, sigmoid_focal_loss, bce_loss):
        assert loss(logits, target).shape == (3,)


def test_mean_of_no_values_is_zero_with_a_gradient() -> None:
    values = torch.ones(4, requires_grad=True)
    nothing = mean_or_zero(values[:0])
    nothing.backward()
    assert float(nothing.detach()) == 0
    assert values.grad is not None
    assert float(mean_or_zero(torch.tensor([1.0, 2.0]))) == 1.5
