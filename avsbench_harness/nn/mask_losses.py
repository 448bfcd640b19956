"""Losses between predicted masks and ground truth, one value per mask."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def squared_dice_loss(logits: Tensor, target: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Dice loss with squares in the denominator (Milletari et al., "V-Net", 2016), one value per mask.

    ``1 - 2 sum(p g) / (sum(p^2) + epsilon + sum(g^2) + epsilon)`` with ``p = sigmoid(logits)``. For an
    empty mask it is 1 with almost no gradient.

    Args:
        logits: (M,...).
        target: (M,...) in [0, 1], same shape.
        epsilon: added to both terms of the denominator.

    Returns:
        (M,) float
    """
    probability = logits.flatten(1).sigmoid()
    truth = target.flatten(1).to(probability.dtype)
    overlap = (probability * truth).sum(dim=1)
    extent = probability.square().sum(dim=1) + truth.square().sum(dim=1)
    return 1 - 2 * overlap / (extent + 2 * epsilon)


def dice_loss(logits: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """Dice loss with plain sums in the denominator, as in DETR and MaskFormer, one value per mask.

    ``1 - (2 sum(p g) + smooth) / (sum(p) + sum(g) + smooth)`` with ``p = sigmoid(logits)``. For an empty
    mask it decreases with the predicted area, towards 0.

    Args:
        logits: (M,...).
        target: (M,...) in [0, 1], same shape.
        smooth: added to numerator and denominator.

    Returns:
        (M,) float
    """
    probability = logits.flatten(1).sigmoid()
    truth = target.flatten(1).to(probability.dtype)
    overlap = (probability * truth).sum(dim=1)
    extent = probability.sum(dim=1) + truth.sum(dim=1)
    return 1 - (2 * overlap + smooth) / (extent + smooth)


def sigmoid_focal_loss(logits: Tensor, target: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss (Lin et al. 2017, equation 5) averaged over the pixels of a mask.

    Binary cross-entropy times ``(1 - q)^gamma``, where ``q`` is the probability of the true class, and times
    ``alpha`` in the foreground and ``1 - alpha`` in the background.

    Args:
        logits: (M,...).
        target: (M,...) in [0, 1], same shape.
        alpha: weight of the foreground.
        gamma: exponent that reduces the weight of well-classified pixels.

    Returns:
        (M,) float
    """
    truth = target.to(logits.dtype)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    probability = logits.sigmoid()
    wrong = probability + truth - 2 * probability * truth  # 1 - p in the foreground, p elsewhere
    balance = alpha * truth + (1 - alpha) * (1 - truth)
    return (balance * wrong.pow(gamma) * entropy).flatten(1).mean(dim=1)


def bce_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy averaged over the pixels of a mask.

    Args:
        logits: (M,...).
        target: (M,...) in [0, 1], same shape.

    Returns:
        (M,) float
    """
    truth = target.to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, truth, reduction="none").flatten(1).mean(dim=1)


def class_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy averaged over the pixels of a class map.

    Args:
        logits: (M,C,H,W).
        target: (M,H,W) int64 class indices.

    Returns:
        (M,) float
    """
    return F.cross_entropy(logits, target, reduction="none").flatten(1).mean(dim=1)


def mean_or_zero(values: Tensor) -> Tensor:
    """Return the mean, or a zero that stays connected to the graph if there are no values."""
    return values.sum() / max(values.numel(), 1)
