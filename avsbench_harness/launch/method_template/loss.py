"""The training loss of MyMethod."""

from __future__ import annotations

from torch import Tensor

from avsbench_harness.nn.mask_losses import bce_loss, class_loss, dice_loss


def mask_loss(logits: Tensor, masks: Tensor, dice_weight: float) -> Tensor:
    """Return BCE and Dice (K = 1) or cross-entropy (K > 1), averaged over frames.

    Args:
        logits: (M,K,H,W) of the annotated frames, M > 0.
        masks: (M,H,W) int64 class indices.
        dice_weight: weight of the Dice loss.
    """
    if logits.shape[1] > 1:
        return class_loss(logits, masks).mean()
    target = masks > 0
    return (bce_loss(logits[:, 0], target) + dice_weight * dice_loss(logits[:, 0], target)).mean()
