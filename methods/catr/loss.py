"""The training loss after matching the targets of a clip with queries (paper equations 8 and 9)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from avsbench_harness.nn.mask_losses import bce_loss, dice_loss, sigmoid_focal_loss, squared_dice_loss
from avsbench_harness.nn.matching import hungarian

from .options import Options

#: The terms that :func:`clip_losses` may return.
TERMS = ("reference", "dice", "focal", "bce")
#: As in :func:`dice_loss` and :func:`squared_dice_loss`.
SMOOTH, EPSILON = 1.0, 1e-3
#: Queries whose masks are resized at a time in matching, to save memory.
QUERIES = 10


@dataclass(frozen=True)
class Targets:
    """The ground-truth sequences of a clip, ``y = (M, R)`` in the paper's section 4.1.

    Attributes:
        masks: (G,t,H,W) float in {0, 1}.
        references: (G,t) int64, index of the reference head's target output: the class, or the last one.
    """

    masks: Tensor
    references: Tensor

    @classmethod
    def of(cls, truth: Tensor, outputs: int, options: Options) -> Targets:
        """Return one target for all sounding objects, or one for every class in the masks.

        In frames without its mask a target is "silent", except as released (``silent_target``).

        Args:
            truth: (t,H,W) class indices, 0 is background.
            outputs: number of outputs of the reference head: the classes, and "silent".
            options: see above.
        """
        if outputs == 2:
            classes = torch.ones(1, dtype=torch.int64, device=truth.device)
            masks = (truth > 0)[None]
        else:
            classes = truth.unique()
            classes = classes[classes > 0].long()
            masks = truth[None] == classes[:, None, None, None]
        sounding = masks.flatten(2).any(dim=2) | (options.silent_target == "sounding")
        return cls(masks.float(), torch.where(sounding, classes[:, None] - 1, outputs - 1))


@torch.no_grad()
def matching_cost(reference: Tensor, masks: Tensor, targets: Targets, options: Options) -> Tensor:
    """Return the matching cost of every query and target (paper equation 8), (Q,G), averaged over frames.

    Args:
        reference: (t,Q,K) logits.
        masks: (t,Q,h,w) logits, resized to the targets here.
        targets: G targets.
        options: with weights and definitions.
    """
    total = reference.new_zeros(reference.shape[1], len(targets.masks))
    with torch.autocast(reference.device.type, enabled=False):
        for frame in range(len(reference)):
            log_probability = reference[frame].log_softmax(dim=-1)[:, targets.references[:, frame]]
            if options.match_reference_by == "probability":
                total -= options.match_reference * log_probability.exp()
            else:
                total -= options.match_reference * log_probability
            truth = targets.masks[:, frame]
            dice = [_dice_coefficients(part, truth, options) for part in masks[frame].split(QUERIES)]
            total -= options.match_dice * torch.cat(dice)
    return total / len(reference)


def _dice_coefficients(logits: Tensor, truth: Tensor, options: Options) -> Tensor:
    """Return the Dice coefficients (Q,G) of masks (Q,h,w), resized here, and truth (G,H,W)."""
    resized = F.interpolate(logits[None], size=truth.shape[-2:], mode="bilinear", align_corners=False)[0]
    probability = resized.sigmoid_()
    # Row by row, (H,Q,W) times (H,W,G): a single sum over all pixels is less precise.
    overlap = (probability.transpose(0, 1) @ truth.permute(1, 2, 0)).sum(dim=0)
    probability, truth = probability.flatten(1), truth.flatten(1)
    if options.dice == "squares":
        extent = torch.linalg.vecdot(probability, probability)[:, None] + truth.sum(dim=1)
        return 2 * overlap / (extent + 2 * EPSILON)
    extent = probability.sum(dim=1)[:, None] + truth.sum(dim=1)
    return (2 * overlap + SMOOTH) / (extent + SMOOTH)


def clip_losses(reference: Tensor, masks: Tensor, targets: Targets, options: Options) -> dict[str, Tensor]:
    """Return the unweighted terms of one clip and one decoder layer (paper equation 9).

    Args:
        reference: (t,Q,K) logits of the annotated frames.
        masks: (t,Q,h,w) logits.
        targets: of these frames.
        options: with matching weights and the definitions of the terms.

    Returns:
        ``reference``: cross-entropy of all queries, summed; ``dice``, ``focal`` and ``bce`` of the matched
        queries. All are means over frames, the last three also over targets. Terms with weight 0, and terms
        of masks if there are no targets, are left out.
    """
    reference, masks = reference.float(), masks.float()
    if options.decoding == "direct":
        queries = matched = torch.zeros(1, dtype=torch.int64, device=masks.device)
    else:
        queries, matched = hungarian(matching_cost(reference, masks, targets, options))
    terms = {}
    if options.reference_weight and options.decoding != "direct":
        terms["reference"] = reference_loss(reference, queries, targets.references[matched], options)
    if not len(queries):
        return terms
    size = targets.masks.shape[-2:]
    chosen = F.interpolate(masks[:, queries], size=size, mode="bilinear", align_corners=False).flatten(0, 1)
    truth = targets.masks[matched].transpose(0, 1).flatten(0, 1)
    if options.dice_weight:
        dice = squared_dice_loss if options.dice == "squares" else dice_loss
        terms["dice"] = dice(chosen, truth).mean()
    if options.focal_weight:
        terms["focal"] = sigmoid_focal_loss(chosen, truth).mean()
    if options.bce_weight:
        logits = chosen.sigmoid() if options.bce_input == "probability" else chosen
        terms["bce"] = bce_loss(logits, truth).mean()
    return terms


def reference_loss(reference: Tensor, queries: Tensor, wanted: Tensor, options: Options) -> Tensor:
    """Return the cross-entropy of the reference head (t,Q,K), summed over queries, averaged over frames.

    The targets of the matched queries (G,) are ``wanted`` (G,t), that of all others is "silent", which has
    the weight ``unmatched_weight``.
    """
    silent = reference.shape[-1] - 1
    target = torch.full(reference.shape[:2], silent, device=reference.device)
    target[:, queries] = wanted.T
    entropy = F.cross_entropy(reference.flatten(0, 1), target.flatten(), reduction="none").view_as(target)
    weight = torch.where(target == silent, options.unmatched_weight, 1.0)
    return (entropy * weight).sum(dim=1).mean()


def weigh(terms: dict[str, Tensor], options: Options) -> dict[str, Tensor]:
    """Multiply the terms with their weights."""
    return {name: getattr(options, f"{name}_weight") * value for name, value in terms.items()}
