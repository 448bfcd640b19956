"""The released training loss: one query per clip is matched and compared (paper equations 8 and 9)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from avsbench_harness.nn.mask_losses import bce_loss, dice_loss, sigmoid_focal_loss
from avsbench_harness.nn.matching import hungarian

from .options import Options

#: Class 0 of the reference head: the query's object makes the sound. Class 1: it does not.
SOUNDING = 0
#: The terms that :func:`clip_losses` returns.
TERMS = ("reference", "dice", "focal", "bce")


@torch.no_grad()
def matching_cost(reference: Tensor, logits: Tensor, truth: Tensor, options: Options) -> Tensor:
    """Cost of every query for the one target of a clip, (Q,): the mean over its frames.

    Args:
        reference: (t,Q,2) logits.
        logits: (t,Q,H,W) masks at the size of the truth.
        truth: (t,H,W) in {0, 1}.
        options: the weights.
    """
    sounding = reference.softmax(dim=-1)[..., SOUNDING]
    frames, queries = sounding.shape
    repeated = truth[:, None].expand(-1, queries, -1, -1)
    dice = 1 - dice_loss(logits.flatten(0, 1), repeated.flatten(0, 1)).view(frames, queries)
    return -(options.match_reference * sounding + options.match_dice * dice).mean(dim=0)


def clip_losses(reference: Tensor, masks: Tensor, truth: Tensor, options: Options) -> dict[str, Tensor]:
    """The terms of one clip and one decoder layer, without weights.

    Args:
        reference: (t,Q,2) logits of the annotated frames.
        masks: (t,Q,h,w) logits.
        truth: (t,H,W) in {0, 1}, one target per frame.
        options: matching weights, and what the oddities of the terms are.

    Returns:
        ``reference``: cross-entropy of all queries, summed; ``dice``, ``focal`` and ``bce`` of the matched
        query. All are means over frames.
    """
    reference, masks = reference.float(), masks.float()
    truth = truth.to(masks.dtype)
    size = truth.shape[-2:]
    with torch.no_grad():
        resized = F.interpolate(masks, size=size, mode="bilinear", align_corners=False)
        cost = matching_cost(reference, resized, truth, options)
    matched, _ = hungarian(cost[:, None])
    chosen = F.interpolate(masks[:, matched], size=size, mode="bilinear", align_corners=False)[:, 0]
    entropy_of = chosen.sigmoid() if options.bce_input == "probability" else chosen
    return {
        "reference": reference_loss(reference, matched, truth, options),
        "dice": dice_loss(chosen, truth).mean(),
        "focal": sigmoid_focal_loss(chosen, truth).mean(),
        "bce": bce_loss(entropy_of, truth).mean(),
    }


def reference_loss(reference: Tensor, matched: Tensor, truth: Tensor, options: Options) -> Tensor:
    """Cross-entropy of the reference head (t,Q,2), summed over queries and averaged over frames.

    The matched query (1,) should say "sounding" and all others "not"; these count ``unmatched_weight``. In
    frames without any sound the published code still wants it to say "sounding" (``silent_target``).
    """
    target = torch.full(reference.shape[:2], 1 - SOUNDING, device=reference.device)
    heard = truth.flatten(1).any(dim=1) | (options.silent_target == "sounding")
    target[:, matched] = torch.where(heard, SOUNDING, 1 - SOUNDING)[:, None]
    entropy = F.cross_entropy(reference.flatten(0, 1), target.flatten(), reduction="none").view_as(target)
    weight = torch.where(target == SOUNDING, 1.0, options.unmatched_weight)
    return (entropy * weight).sum(dim=1).mean()


def weigh(terms: dict[str, Tensor], options: Options) -> dict[str, Tensor]:
    """The terms times their weights."""
    return {name: getattr(options, f"{name}_weight") * value for name, value in terms.items()}
