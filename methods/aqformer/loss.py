"""AQFormer's losses (equations 7, 8, 13 and 14), and the loss of the class head for avss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from avsbench_harness.nn.mask_losses import bce_loss, dice_loss, mean_or_zero


def mask_losses(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return BCE and Dice of the masks (equation 14), summed over layers and averaged over frames.

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


def similarity_loss(embeddings: Tensor, pooled: Tensor, valid: Tensor, reduction: str) -> Tensor:
    """Return equation 7: differences between similarities of queries and of features, averaged over clips.

    Args:
        embeddings: ``A`` of every layer (B,T,L,dim).
        pooled: ``Z`` of every layer (B,T,L,dim).
        valid: (B,T) bool; pairs with a padded frame do not count.
        reduction: over layers and pairs of frames, ``sum`` or ``mean``.
    """
    of_queries, of_features = (_cosines(vectors.transpose(1, 2).float()) for vectors in (embeddings, pooled))
    pairs = valid[:, None, :, None] & valid[:, None, None]
    differences = (of_queries - of_features).abs() * pairs  # (B,L,T,T)
    sums = differences.sum(dim=(1, 2, 3))
    if reduction == "mean":
        sums = sums / (differences.shape[1] * pairs.sum(dim=(1, 2, 3)).clamp(min=1))
    return mean_or_zero(sums[valid.any(dim=1)])


def mean_similarity(vectors: Tensor, valid: Tensor) -> Tensor:
    """Return the mean cosine similarity of the vectors of two different frames of a clip.

    Args:
        vectors: (B,T,dim).
        valid: (B,T) bool; pairs with a padded frame do not count.
    """
    different = ~torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
    return mean_or_zero(_cosines(vectors.float())[valid[:, :, None] & valid[:, None] & different])


def masked_average(maps: Tensor, probability: Tensor) -> Tensor:
    """Return equation 8: the mean over all pixels of a map times the downsampled mask.

    The mask is downsampled by averaging. The mean is not divided by the mask's area, to which cosine
    similarity is invariant.

    Args:
        maps: (...,dim,h,w).
        probability: (...,H,W), sides that are multiples of the map's.

    Returns:
        (...,dim)
    """
    height, width = maps.shape[-2:]
    small = F.adaptive_avg_pool2d(probability.flatten(0, -3)[:, None].float(), (height, width))
    weights = small.view(*probability.shape[:-2], height * width, 1)
    averages: Tensor = (maps.flatten(-2).float() @ weights).squeeze(-1) / (height * width)
    return averages


def sounding_class_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the cross-entropy of the class, averaged over all sounding pixels.

    Args:
        logits: (M,70,h,w) of the annotated frames, resized to the masks here.
        masks: (M,H,W) int64 class indices, 0 background.
    """
    sounds = masks > 0
    resized = resize(logits.float(), (masks.shape[-2], masks.shape[-1])).movedim(1, -1)
    return mean_or_zero(F.cross_entropy(resized[sounds], masks[sounds] - 1, reduction="none"))


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (N,C,h,w) bilinearly to (N,C,*size); N may be 0."""
    if not len(maps):
        return maps[..., :1, :1].expand(*maps.shape[:2], *size)
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def _cosines(vectors: Tensor) -> Tensor:
    """Return cosine similarities (...,T,T) of vectors (...,T,dim)."""
    normed = F.normalize(vectors, dim=-1)
    return torch.matmul(normed, normed.mT)
