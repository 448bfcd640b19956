"""AQFormer's losses (equations 7, 8, 13 and 14), and that of the class head that avss needs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from avsbench_harness.nn.mask_losses import bce_loss, dice_loss, mean_or_zero


def mask_losses(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """BCE and Dice of every layer's masks (equation 14), summed over layers and averaged over frames.

    Args:
        logits: (M,L,h,w) of the annotated frames, resized to the masks here.
        masks: (M,H,W) bool.
    """
    resized = resize(logits.float(), (masks.shape[-2], masks.shape[-1]))
    frames, layers = resized.shape[:2]
    target = masks[:, None].expand_as(resized).to(resized.dtype)
    bce, dice = (
        loss(resized.flatten(0, 1), target.flatten(0, 1)).view(frames, layers).sum(dim=1)
        for loss in (bce_loss, dice_loss)
    )
    return mean_or_zero(bce), mean_or_zero(dice)


def similarity_loss(embeddings: Tensor, pooled: Tensor, valid: Tensor) -> Tensor:
    """Equation 7: queries of two frames are as alike as what is seen there; averaged over clips.

    Args:
        embeddings: ``A`` of every layer (B,T,L,dim).
        pooled: ``Z`` for every layer (B,T,L,dim).
        valid: (B,T) bool; pairs with a frame that does not exist do not count.
    """
    heard, seen = (_cosines(vectors.transpose(1, 2).float()) for vectors in (embeddings, pooled))
    pairs = valid[:, None, :, None] & valid[:, None, None]
    differences = (heard - seen).abs() * pairs  # (B,L,T,T)
    return mean_or_zero(differences.sum(dim=(1, 2, 3))[valid.any(dim=1)])


def masked_average(maps: Tensor, probability: Tensor) -> Tensor:
    """Equation 8: the mean over all pixels of a map times the downsampled mask.

    A pixel of the downsampled mask is the mean of the area that it stands for. Cosine similarity does not
    see that the mean is not divided by the mask's area.

    Args:
        maps: (...,dim,h,w).
        probability: (...,H,W), of a side that is a multiple of the map's.

    Returns:
        (...,dim)
    """
    height, width = maps.shape[-2:]
    small = F.adaptive_avg_pool2d(probability.flatten(0, -3)[:, None].float(), (height, width))
    weights = small.view(*probability.shape[:-2], height * width, 1)
    averages: Tensor = (maps.flatten(-2).float() @ weights).squeeze(-1) / (height * width)
    return averages


def sounding_class_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy of the class of what sounds, averaged over all pixels that do.

    Args:
        logits: (M,70,h,w) of the annotated frames, resized to the masks here.
        masks: (M,H,W) int64 class indices, 0 background.
    """
    sounds = masks > 0
    resized = resize(logits.float(), (masks.shape[-2], masks.shape[-1])).movedim(1, -1)
    return mean_or_zero(F.cross_entropy(resized[sounds], masks[sounds] - 1, reduction="none"))


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(N,C,h,w) -> (N,C,*size), bilinear; without frames too."""
    if not len(maps):
        return maps[..., :1, :1].expand(*maps.shape[:2], *size)
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def _cosines(vectors: Tensor) -> Tensor:
    """Cosine similarities (...,T,T) of vectors (...,T,dim)."""
    normed = F.normalize(vectors, dim=-1)
    return torch.matmul(normed, normed.mT)
