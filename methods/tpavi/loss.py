"""The training losses: on the masks, and between masked pixels and sound ("AVM")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from avsbench_harness.nn.mask_losses import bce_loss, class_loss, mean_or_zero

from .options import Options

#: Keeps the area of an empty mask and the logarithm of a cosine of 0 finite (published code).
EPSILON = 1e-6


def segmentation_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Binary cross-entropy (K = 1) or cross-entropy, averaged over pixels and frames.

    Args:
        logits: (M,K,H,W) of the annotated frames.
        masks: (M,H,W) int64 class indices.
    """
    if logits.shape[1] > 1:
        return mean_or_zero(class_loss(logits, masks))
    return mean_or_zero(bce_loss(logits[:, 0], masks > 0))


def matching_loss(
    logits: Tensor, features: Sequence[Tensor], sounds: Sequence[Tensor], options: Options
) -> Tensor:
    """How far the pixels under the predicted masks are from what should match them, over the levels.

    Audio-visual matching, L_AVM (paper, "Objective function", there with the Kullback-Leibler divergence).

    Args:
        logits: (M,K,H,W) of all frames that take part.
        features: of all four levels, (M,C,h,w) each.
        sounds: projected sounds of all four levels, (M,C) each.
        options: the fields that begin with ``avm`` and ``vv``, none of them ``None``.
    """
    if not len(logits):
        return logits.sum()
    if logits.shape[1] > 1:
        picture = (logits.argmax(dim=1, keepdim=True) != 0).to(logits.dtype)
    else:
        picture = logits.sigmoid() if options.avm_pool == "probabilities" else logits
    as_logits = logits.shape[1] == 1 and options.avm_pool == "logits"
    terms = []
    for stage in options.avm_stages:
        feature, sound = features[stage - 1], sounds[stage - 1]
        mask = F.adaptive_avg_pool2d(picture, (feature.shape[2], feature.shape[3]))[:, 0]  # (M,h,w)
        mask = mask.sigmoid() if as_logits else mask
        if options.avm_hard_mask:
            mask = (mask > 0.5).to(mask.dtype)
        seen = torch.einsum("mchw,mhw->mc", feature, mask)
        # The published soft mask is averaged over the whole map: a small mask makes a short feature.
        area = mask.sum(dim=(1, 2))[:, None] + EPSILON if options.avm_hard_mask else mask[0].numel()
        terms.append(_stage_loss(seen / area, sound, options))
    total = torch.stack(terms)
    return total.sum() if options.avm_level_sum else total.mean()


def _stage_loss(seen: Tensor, sound: Tensor, options: Options) -> Tensor:
    """One level: masked features (M,C) against their targets, made of the sounds (M,C)."""
    if options.avm_normalise:
        seen, sound = F.normalize(seen, dim=-1), F.normalize(sound, dim=-1)
    target = sound
    if options.avm == "vv" and not options.vv_reads_audio:
        target = seen[_most_alike(sound, options.vv_self_distance)]
    if options.avm_distance == "kl":
        apart = F.kl_div(seen.log_softmax(dim=-1), target.softmax(dim=-1), reduction="none").sum(dim=-1)
    elif options.avm_distance == "euclidean":
        apart = F.pairwise_distance(target, seen)
    else:
        apart = -(F.relu((target * seen).sum(dim=-1)) + EPSILON).log()
    return apart.sum() if options.avm_sum else apart.mean()


@torch.no_grad()
def _most_alike(sound: Tensor, self_distance: float) -> Tensor:
    """(M,) for each frame, the frame of the batch whose sound (M,C) is nearest.

    That should not be the frame itself; in the published code a mere ``self_distance`` is added to that.
    """
    distance = torch.cdist(sound, sound)
    distance.diagonal().add_(self_distance)
    return distance.argmin(dim=0)
