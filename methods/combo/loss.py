"""Matching of queries and masks, and the training loss (paper section 3.4 and equations 6-8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from avsbench_harness.nn.mask_decoder import mask_logits
from avsbench_harness.nn.mask_losses import bce_loss, dice_loss, mean_or_zero
from avsbench_harness.nn.matching import hungarian
from avsbench_harness.nn.point_sampling import sample_points, uncertain_points

from .options import Options

#: Lower bound of the norm of a frame's masks.
EPSILON = 1e-8


@dataclass(frozen=True)
class Targets:
    """The masks of one frame, one per class in it; background is a class like any other.

    Attributes:
        labels: (M,) int64, ascending.
        masks: (M,H,W) float, 0 or 1.
    """

    labels: Tensor
    masks: Tensor


def frame_targets(masks: Tensor, classes: int) -> list[Targets]:
    """Return the targets of the queries of each frame.

    Args:
        masks: (F,H,W) int64 class indices; an index of ``classes`` or more (padding) has no target, and its
            pixels are outside all masks.
        classes: number of classes with background.
    """
    targets = []
    for mask in masks:
        labels = mask.unique()
        labels = labels[labels < classes]
        targets.append(Targets(labels, (mask == labels[:, None, None]).float()))
    return targets


def matching_costs(
    class_logits: Tensor, logits: Tensor, labels: Tensor, masks: Tensor, options: Options
) -> Tensor:
    """Return the cost of assigning each target to each query, (Q,M).

    Args:
        class_logits: (Q,C + 1).
        logits: (Q,P) of masks, at P points.
        labels: (M,) of the targets.
        masks: (M,P), at the same points.
        options: with the weights of the three terms.
    """
    wrong_class = -class_logits.softmax(dim=-1)[:, labels]
    return (
        options.class_weight * wrong_class
        + options.mask_weight * pairwise_bce(logits, masks)
        + options.dice_weight * pairwise_dice(logits, masks)
    )


def pairwise_bce(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of every query (Q,P) and every mask (M,P): (Q,M)."""
    # -log(1 - p) everywhere, minus the logit inside the mask: one product instead of two.
    off = F.softplus(logits).sum(dim=1, keepdim=True)
    return (off - logits @ masks.T) / logits.shape[1]


def pairwise_dice(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the Dice loss of every query (Q,P) and every mask (M,P): (Q,M)."""
    probability = logits.sigmoid()
    extent = probability.sum(dim=1)[:, None] + masks.sum(dim=1)
    return 1 - (2 * probability @ masks.T + 1) / (extent + 1)


@torch.no_grad()
def match(
    class_logits: Tensor,
    masks: Sequence[Tensor],
    targets: list[Targets],
    options: Options,
    points: Tensor | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """Return the assignment of queries to the targets of each frame, by Hungarian matching.

    Args:
        class_logits: (F,Q,C + 1).
        masks: logits of the F frames, (Q,h,w) each.
        targets: of the F frames.
        options: with the weights, and the number of random points at which masks are compared.
        points: (P,2) in [0, 1], to compare masks at instead.

    Returns:
        Per frame the queries, ascending, and the target of each.
    """
    frames = len(targets)
    if points is None:
        chosen = torch.rand(frames, options.loss_points, 2, device=class_logits.device)
    else:
        chosen = points.expand(frames, -1, -1)
    pairs = []
    for classes, logits, target, where in zip(class_logits, masks, targets, chosen, strict=True):
        predicted, wanted = (sample_points(maps[None], where[None])[0] for maps in (logits, target.masks))
        pairs.append(hungarian(matching_costs(classes, predicted, target.labels, wanted, options)))
    return pairs


def set_losses(
    class_logits: Tensor,
    embeddings: Tensor,
    features: Sequence[Tensor],
    targets: list[Targets],
    options: Options,
    points: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return the unweighted losses of one depth: ``class``, ``mask`` (cross-entropy) and ``dice``.

    Only matched masks are computed with gradients; the others have none.

    Args:
        class_logits: (F,Q,C + 1) of the annotated frames.
        embeddings: (F,Q,dim); their products with the features are the mask logits.
        features: of the F frames, (dim,h,w) each.
        targets: of the F frames.
        options: as for :func:`match`.
        points: as for :func:`match`; used for the mask losses as well.
    """
    class_logits = class_logits.float()
    with torch.no_grad():
        masks = [_masks(queries, maps) for queries, maps in zip(embeddings, features, strict=True)]
    pairs = match(class_logits, masks, targets, options, points)
    labels = [target.labels for target in targets]
    matched = [
        _masks(queries[rows], maps)
        for queries, maps, (rows, _) in zip(embeddings, features, pairs, strict=True)
    ]
    wanted = [target.masks[found] for target, (_, found) in zip(targets, pairs, strict=True)]
    entropy, dice = mask_losses(torch.cat(matched), torch.cat(wanted), options.loss_points, points)
    return {
        "class": class_loss(class_logits, labels, pairs, options.no_object_weight),
        "mask": entropy,
        "dice": dice,
    }


def _masks(embeddings: Tensor, features: Tensor) -> Tensor:
    """Return the mask logits (Q,h,w) of one frame from embeddings (Q,dim) and features (dim,h,w)."""
    return mask_logits(embeddings[None], features[None])[0].float()


def class_loss(
    class_logits: Tensor,
    labels: list[Tensor],
    pairs: list[tuple[Tensor, Tensor]],
    no_object_weight: float,
) -> Tensor:
    """Return the weighted mean cross-entropy over all queries; the target of unmatched ones is "no object".

    Args:
        class_logits: (F,Q,C + 1), "no object" last.
        labels: per frame (M,).
        pairs: per frame the matched queries and their targets.
        no_object_weight: weight of the last class; that of the others is 1.
    """
    nothing = class_logits.shape[-1] - 1
    wanted = torch.full(class_logits.shape[:2], nothing, device=class_logits.device)
    for row, label, (queries, found) in zip(wanted, labels, pairs, strict=True):
        row[queries] = label[found]
    weight = class_logits.new_ones(nothing + 1)
    weight[nothing] = no_object_weight
    return F.cross_entropy(class_logits.transpose(1, 2), wanted, weight)


def mask_losses(
    logits: Tensor, masks: Tensor, count: int, points: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return cross-entropy and Dice loss of matched masks, at points sampled by uncertainty.

    Args:
        logits: (M,h,w).
        masks: (M,H,W), the target of each; any size.
        count: random points per mask.
        points: (P,2) to use instead.

    Returns:
        Both losses, averaged over masks.
    """
    chosen = uncertain_points(logits, count) if points is None else points.expand(len(logits), -1, -1)
    predicted = sample_points(logits[:, None], chosen)[:, 0]
    with torch.no_grad():
        wanted = sample_points(masks[:, None], chosen)[:, 0]
    return mean_or_zero(bce_loss(predicted, wanted)), mean_or_zero(dice_loss(predicted, wanted))


def neighbours(valid: Tensor, chunk: int | None) -> tuple[Tensor, Tensor]:
    """Return pairs of consecutive valid frames, as indices among all valid frames.

    Args:
        valid: (B,T) bool.
        chunk: frames per chunk; frames ``chunk - 1`` and ``chunk`` are no pair (the published code splits
            clips into chunks of five frames). ``None``: clips are not split.

    Returns:
        Indices of the earlier and of the later frames of the pairs, int64.
    """
    places = valid.flatten().cumsum(0).view(valid.shape) - 1
    both = valid[:, :-1] & valid[:, 1:]
    if chunk is not None:
        step = torch.arange(1, valid.shape[1], device=valid.device)
        both = both & (step % chunk != 0)
    return places[:, :-1][both], places[:, 1:][both]


@dataclass(frozen=True)
class FeatureProducts:
    """Products of the feature maps of frames, from which cosines between the masks of frames are computed.

    With masks ``E F`` (embeddings times features), the inner product of two frames' masks, over queries and
    pixels, is that of ``E1^T E2`` and ``F1 F2^T``, over pairs of channels. The latter is shared by all
    depths, and no depth needs its full masks.

    Attributes:
        earlier, later: indices of the frames of each pair, (P,) int64, see :func:`neighbours`.
        own: (N,dim,dim), products of every frame with itself.
        across: (P,dim,dim), products of the earlier with the later frame of each pair.
    """

    earlier: Tensor
    later: Tensor
    own: Tensor
    across: Tensor

    @classmethod
    def of(cls, features: Tensor, pairs: tuple[Tensor, Tensor]) -> FeatureProducts:
        """Compute the products of feature maps (N,dim,h,w)."""
        earlier, later = pairs
        with _in_float32(features):
            rows = features.float().flatten(2)
            columns = rows.transpose(1, 2)
            return cls(earlier, later, rows @ columns, rows[earlier] @ columns[later])

    def distances(self, embeddings: Tensor) -> Tensor:
        """Return 1 minus the cosine between the mask logits of the two frames of each pair, (P,).

        Args:
            embeddings: (N,Q,dim).
        """
        with _in_float32(embeddings):
            rows = embeddings.float()
            columns = rows.transpose(1, 2)
            norms = (columns @ rows * self.own).sum(dim=(1, 2)).clamp(min=EPSILON**2).sqrt()
            products = (columns[self.earlier] @ rows[self.later] * self.across).sum(dim=(1, 2))
            return 1 - products / (norms[self.earlier] * norms[self.later])


def _in_float32(values: Tensor) -> torch.autocast:
    """Disable half precision: differences between cosines close to 1 would be lost."""
    return torch.autocast(values.device.type, enabled=False)


def consistency_loss(distances: Tensor, *, clips: int | None = None, weight_learns: bool = True) -> Tensor:
    """Return the adaptive inter-frame consistency loss (paper equations 6-7).

    It is ``exp(-d) d``, where ``d`` is 1 minus the cosine between all mask logits of two frames, so that
    pairs with very different masks have a small weight.

    Args:
        distances: (P,), see :meth:`FeatureProducts.distances`.
        clips: number of clips by which the sum over pairs is divided (equation 7); ``None``: averaged over
            pairs, as in the published code.
        weight_learns: whether gradients flow through the adaptive weight ``exp(-d)``. They do in the
            published code, which drives pairs with ``d > 1`` further apart.
    """
    terms = distances * torch.exp(-(distances if weight_learns else distances.detach()))
    return mean_or_zero(terms) if clips is None else terms.sum() / max(clips, 1)
