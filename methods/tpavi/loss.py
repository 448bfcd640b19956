"""The training losses: of the masks, and between masked pixels and audio ("AVM")."""

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
    """Return binary cross-entropy (K = 1) or cross-entropy, averaged over pixels and frames.

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
    """Return the audio-visual matching loss L_AVM: distances of masked features and audio, over the levels.

    See the paper, "Objective function", there with the Kullback-Leibler divergence.

    Args:
        logits: (M,K,H,W) of all frames in the loss.
        features: of all four levels, (M,C,h,w) each.
        sounds: projected audio of all four levels, (M,C) each.
        options: uses the fields that begin with ``avm`` and ``vv``, none of them ``None``.
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
        masked = torch.einsum("mchw,mhw->mc", feature, mask)
        # The published soft mask is averaged over the whole map: a small mask gives a small norm.
        area = mask.sum(dim=(1, 2))[:, None] + EPSILON if options.avm_hard_mask else mask[0].numel()
        terms.append(_stage_loss(masked / area, sound, options))
    total = torch.stack(terms)
    return total.sum() if options.avm_level_sum else total.mean()


def _stage_loss(masked: Tensor, sound: Tensor, options: Options) -> Tensor:
    """Return the loss of one level, from masked features (M,C) and projected audio (M,C)."""
    if options.avm_normalise:
        masked, sound = F.normalize(masked, dim=-1), F.normalize(sound, dim=-1)
    target = sound
    if options.avm == "vv" and not options.vv_reads_audio:
        target = masked[_nearest_audio(sound, options.vv_self_distance)]
    if options.avm_distance == "kl":
        distance = F.kl_div(masked.log_softmax(dim=-1), target.softmax(dim=-1), reduction="none").sum(dim=-1)
    elif options.avm_distance == "euclidean":
        distance = F.pairwise_distance(target, masked)
    else:
        distance = -(F.relu((target * masked).sum(dim=-1)) + EPSILON).log()
    return distance.sum() if options.avm_sum else distance.mean()


@torch.no_grad()
def _nearest_audio(sound: Tensor, self_distance: float) -> Tensor:
    """Return for each frame the index (M,) of the frame in the batch with the nearest audio (M,C).

    As in the published code, ``self_distance`` is added to a frame's distance from itself, which excludes
    the frame itself only if the distances are small enough.
    """
    distance = torch.cdist(sound, sound)
    distance.diagonal().add_(self_distance)
    return distance.argmin(dim=0)
