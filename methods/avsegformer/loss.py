"""The training losses: of final and intermediate masks, and of the mask feature (released code)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from avsbench_harness.nn.mask_losses import bce_loss, class_loss, mean_or_zero, squared_dice_loss


def segmentation_loss(logits: Tensor, masks: Tensor, kind: str) -> Tensor:
    """Return the loss of the predicted masks, averaged over frames.

    Args:
        logits: (M,K,H,W) of the annotated frames.
        masks: (M,H,W) int64 class indices.
        kind: ``dice``, ``bce`` (K = 1 only) or ``cross_entropy`` (K > 1 only).
    """
    if kind == "cross_entropy":
        return mean_or_zero(class_loss(logits, masks))
    if kind == "dice" and logits.shape[1] > 1:
        return mean_or_zero(class_dice_loss(logits, masks))
    return mean_or_zero(_binary_loss(logits[:, 0], masks, kind))


def class_dice_loss(logits: Tensor, masks: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Return the Dice loss per frame, averaged over the classes in its mask, background included.

    The formula is that of :func:`squared_dice_loss`, with ``p`` the softmax over classes.

    Args:
        logits: (M,K,H,W).
        masks: (M,H,W) int64 class indices.
        epsilon: added to both terms of the denominator.

    Returns:
        (M,) float
    """
    probability, truth = logits.flatten(2).softmax(dim=1), masks.flatten(1)
    hit = probability.gather(1, truth[:, None])[:, 0]  # (M,P): of the true class
    overlap = hit.new_zeros(logits.shape[:2]).scatter_add(1, truth, hit)
    area = hit.new_zeros(logits.shape[:2]).scatter_add(1, truth, hit.new_ones(()).expand_as(truth))
    dice = 1 - 2 * overlap / (probability.square().sum(dim=2) + area + 2 * epsilon)
    present = area > 0
    return (dice * present).sum(dim=1) / present.sum(dim=1)


def mix_loss(mask_feature: Tensor, masks: Tensor, kind: str) -> Tensor:
    """Return the loss of the mask feature as a prediction of the sounding pixels, averaged over frames.

    The feature's mean over the channels, resized to the masks, is the logit. In the released configuration
    the feature is never negative, so that no probability is below 1/2 and the term cannot reach 0.

    Args:
        mask_feature: (M,C,h,w) of the annotated frames, after the mixer.
        masks: (M,H,W) int64; every class but the background is foreground.
        kind: ``dice`` or ``bce``.
    """
    logits = mask_feature.mean(dim=1, keepdim=True)
    logits = F.interpolate(logits, size=masks.shape[-2:], mode="bilinear", align_corners=False)
    return mean_or_zero(_binary_loss(logits[:, 0], masks, kind))


def _binary_loss(logits: Tensor, masks: Tensor, kind: str) -> Tensor:
    loss = {"dice": squared_dice_loss, "bce": bce_loss}[kind]
    return loss(logits, (masks > 0).to(logits.dtype))
