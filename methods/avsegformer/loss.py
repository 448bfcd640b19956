"""The released training loss (the paper's differs: see the model card)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from avsbench_harness.nn.mask_losses import bce_loss, class_loss, mean_or_zero, squared_dice_loss


def segmentation_loss(logits: Tensor, masks: Tensor, kind: str) -> Tensor:
    """Loss of the predicted masks, averaged over frames.

    Args:
        logits: (M,K,H,W) of the annotated frames.
        masks: (M,H,W) int64 class indices.
        kind: ``dice`` or ``bce`` (K = 1), or ``cross_entropy``.
    """
    if kind == "cross_entropy":
        return mean_or_zero(class_loss(logits, masks))
    return mean_or_zero(_binary_loss(logits[:, 0], masks, kind))


def mix_loss(mask_feature: Tensor, masks: Tensor, kind: str) -> Tensor:
    """Loss of the mask feature itself, taken as a picture of what sounds; averaged over frames.

    Its mean over the channels, resized to the masks, counts as a logit. The feature is never negative,
    so that no probability falls below 1/2 and the term cannot reach 0.

    Args:
        mask_feature: (M,C,h,w) of the annotated frames, after the mixer.
        masks: (M,H,W) int64; whatever is not background counts as foreground.
        kind: ``dice`` or ``bce``.
    """
    picture = mask_feature.mean(dim=1, keepdim=True)
    picture = F.interpolate(picture, size=masks.shape[-2:], mode="bilinear", align_corners=False)
    return mean_or_zero(_binary_loss(picture[:, 0], masks, kind))


def _binary_loss(logits: Tensor, masks: Tensor, kind: str) -> Tensor:
    loss = {"dice": squared_dice_loss, "bce": bce_loss}[kind]
    return loss(logits, (masks > 0).to(logits.dtype))
