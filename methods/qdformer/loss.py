"""The segmentation loss: a set loss after Hungarian matching (section 3.5, equation 10)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou, generalized_box_iou_loss, sigmoid_focal_loss

from avsbench_harness.nn.mask_losses import bce_loss, dice_loss, mean_or_zero
from avsbench_harness.nn.matching import hungarian

from .mask_decoder import FramePredictions
from .options import Options
from .targets import Objects


def matching_costs(predicted: FramePredictions, masks: Tensor, objects: Objects, options: Options) -> Tensor:
    """Return ``L_match(y_i, y_j)`` of every query and every object of a clip, (Q,G).

    Each term is averaged over the clip's A annotated frames, the box terms over those with the object. The
    paper pads the objects to the number of queries with "no object" (``∅``), whose cost is the query's class
    loss; it is subtracted here instead, which gives the same matching without padding.

    Args:
        predicted: predictions of the A frames.
        masks: (A,Q,H,W) predicted mask logits at the size of the ground truth.
        objects: objects of the clip.
        options: with the weights.
    """
    present = objects.present.T.float()  # (A,G)
    frames = max(len(present), 1)
    entropy, dice = pairwise_mask_losses(masks, objects.masks.transpose(0, 1))
    found, nothing = focal_loss(predicted.class_logits, 1.0), focal_loss(predicted.class_logits, 0.0)
    of_label = (found - nothing)[..., objects.labels] * present[:, None]  # (A,Q,G)
    boxes, wanted = predicted.boxes, objects.boxes.transpose(0, 1)
    l1 = (boxes[:, :, None] - wanted[:, None]).abs().sum(dim=-1)
    giou = torch.stack([_pairwise_giou(*pair) for pair in zip(boxes, wanted, strict=True)])
    box = (options.l1_weight * l1 + options.giou_weight * (1 - giou)) * present[:, None]
    return (
        (options.bce_weight * entropy + options.dice_weight * dice).sum(dim=0) / frames
        + options.class_weight * of_label.sum(dim=0) / frames
        + box.sum(dim=0) / present.sum(dim=0).clamp(min=1)
    )


def pairwise_mask_losses(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return BCE and Dice loss of every query and every object, per frame.

    Args:
        logits: (A,Q,H,W).
        masks: (A,G,H,W), 0 or 1.

    Returns:
        Two tensors (A,Q,G), the values of ``bce_loss`` and ``dice_loss``.
    """
    logits, masks = logits.flatten(2), masks.flatten(2)
    # -log(1 - p) everywhere, minus the logit inside the mask.
    entropy = (F.softplus(logits).sum(dim=2)[..., None] - logits @ masks.mT) / logits.shape[2]
    probability = logits.sigmoid()
    extent = probability.sum(dim=2)[..., None] + masks.sum(dim=2)[:, None]
    return entropy, 1 - (2 * probability @ masks.mT + 1) / (extent + 1)


def focal_loss(logits: Tensor, target: float) -> Tensor:
    """Return the elementwise focal loss (alpha 1/4, gamma 2) of logits with the same ``target``."""
    return sigmoid_focal_loss(logits, torch.full_like(logits, target))


def set_losses(
    clips: Sequence[FramePredictions], objects: Sequence[Objects], options: Options
) -> dict[str, Tensor]:
    """Return the weighted terms of equation 10 for the optimal assignment.

    Queries and objects are matched once per clip, for all frames together. The mask terms are over all
    annotated frames, including those with empty masks, the box terms over the frames with the object, and
    the class term over all queries and frames, with no class as the target of unmatched queries and in
    frames without the object. Mask and box terms are averaged over matched objects and frames; the sum of
    the class term is divided by the number of objects in all frames.

    Args:
        clips: predictions of the annotated frames of each clip.
        objects: objects of each clip.
        options: with the weights.

    Returns:
        ``mask_bce``, ``mask_dice``, ``class``, ``box_l1`` and ``box_giou``.
    """
    sums: dict[str, list[Tensor]] = {name: [] for name in ("mask_bce", "mask_dice", "box_l1", "box_giou")}
    classes, found = [], 0
    for predicted, wanted in zip(clips, objects, strict=True):
        masks = resize(predicted.mask_logits.float(), (wanted.masks.shape[-2], wanted.masks.shape[-1]))
        queries, targets = match(predicted, masks, wanted, options)
        present = wanted.present[targets].T  # (A,M)
        found += int(present.sum())
        classes.append(_class_sum(predicted.class_logits.float(), wanted.labels[targets], queries, present))

        logits, truth = masks[:, queries].flatten(0, 1), wanted.masks[targets].transpose(0, 1).flatten(0, 1)
        sums["mask_bce"].append(bce_loss(logits, truth))
        sums["mask_dice"].append(dice_loss(logits, truth))
        boxes = predicted.boxes.float()[:, queries][present]
        places = wanted.boxes[targets].transpose(0, 1)[present]
        sums["box_l1"].append((boxes - places).abs().sum(dim=-1))
        sums["box_giou"].append(generalized_box_iou_loss(_corners(boxes), _corners(places), reduction="none"))
    mean = {name: mean_or_zero(torch.cat(values)) for name, values in sums.items()}
    return {
        "mask_bce": options.bce_weight * mean["mask_bce"],
        "mask_dice": options.dice_weight * mean["mask_dice"],
        "class": options.class_weight * torch.stack(classes).sum() / max(found, 1),
        "box_l1": options.l1_weight * mean["box_l1"],
        "box_giou": options.giou_weight * mean["box_giou"],
    }


@torch.no_grad()
def match(
    predicted: FramePredictions, masks: Tensor, objects: Objects, options: Options
) -> tuple[Tensor, Tensor]:
    """Return the optimal assignment: queries of a clip, ascending, and the object of each."""
    wide = FramePredictions(
        predicted.class_logits.float(), predicted.boxes.float(), predicted.mask_logits.float()
    )
    return hungarian(matching_costs(wide, masks, objects, options))


def resize(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize mask logits (A,Q,h,w) bilinearly."""
    return F.interpolate(masks, size=size, mode="bilinear", align_corners=False)


def _class_sum(logits: Tensor, labels: Tensor, queries: Tensor, present: Tensor) -> Tensor:
    """Return the focal loss summed over the A frames, all queries and all classes.

    Args:
        logits: (A,Q,C).
        labels: (M,) labels of the matched objects.
        queries: (M,) their queries.
        present: (A,M) bool, whether the object is in the frame.
    """
    wanted = torch.zeros_like(logits)
    wanted[:, queries, labels] = present.to(wanted.dtype)
    return sigmoid_focal_loss(logits, wanted, reduction="sum")


def _corners(boxes: Tensor) -> Tensor:
    return box_convert(boxes, "cxcywh", "xyxy")


def _pairwise_giou(boxes: Tensor, others: Tensor) -> Tensor:
    """Return GIoU (Q,G) of boxes (Q,4) and (G,4), centre and size; 0 for boxes without area."""
    giou = generalized_box_iou(_corners(boxes), _corners(others))
    return torch.where(others[:, 2] * others[:, 3] > 0, giou, 0.0)
