"""QDFormer's loss, compared with the paper's equations."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from avsbench_methods.qdformer.loss import matching_costs, set_losses
from avsbench_methods.qdformer.mask_decoder import FramePredictions
from avsbench_methods.qdformer.options import Options
from avsbench_methods.qdformer.targets import Objects, clip_objects
from torch import Tensor

from avsbench_harness.tasks import S4

from .helpers import draw


def one_pair() -> tuple[FramePredictions, Objects]:
    """One query, one class, one object, one frame of 1 x 2 pixels."""
    predicted = FramePredictions(
        class_logits=torch.zeros(1, 1, 1),
        boxes=torch.tensor([[[0.5, 0.5, 1.0, 1.0]]]),
        mask_logits=torch.tensor([[[[0.0, math.log(3.0)]]]]),
    )
    return predicted, clip_objects(torch.tensor([[[1, 0]]]))


def random_set(
    seed: int, frames: int = 3, queries: int = 4, classes: int = 6
) -> tuple[FramePredictions, Objects]:
    masks = torch.zeros(frames, 8, 8, dtype=torch.int64)
    masks[:, :4, :4], masks[1:, 5:, 2:7] = 2, 5
    masks[0, 6, 6] = 3
    predicted = FramePredictions(
        class_logits=draw(frames, queries, classes, seed=seed),
        boxes=draw(frames, queries, 4, seed=seed + 100).sigmoid(),
        mask_logits=draw(frames, queries, 8, 8, seed=seed + 200),
    )
    return predicted, clip_objects(masks)


def loss_by_hand(
    predicted: FramePredictions, wanted: Objects, order: tuple[int, ...], options: Options
) -> float:
    """Equation 10 for object ``j`` at query ``order[j]``, summed over pairs and averaged over frames."""
    total, frames = 0.0, len(predicted.boxes)
    probabilities = predicted.class_logits.sigmoid()
    target = torch.zeros_like(probabilities)
    for j, query in enumerate(order):
        where = [t for t in range(frames) if wanted.present[j, t]]
        for t in range(frames):
            truth, p = wanted.masks[j, t], predicted.mask_logits[t, query].sigmoid()
            bce = -(truth * p.log() + (1 - truth) * (1 - p).log()).mean()
            dice = 1 - (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1)
            total += float(options.bce_weight * bce + options.dice_weight * dice) / frames
        for t in where:
            target[t, query, wanted.labels[j]] = 1
            box, truth = predicted.boxes[t, query], wanted.boxes[j, t]
            l1 = float((box - truth).abs().sum())
            total += (options.l1_weight * l1 + options.giou_weight * (1 - giou_by_hand(box, truth))) / len(
                where
            )
    q = torch.where(target > 0, probabilities, 1 - probabilities)
    focal = torch.where(target > 0, 0.25, 0.75) * (1 - q) ** 2 * -q.log()
    return total + options.class_weight * float(focal.sum()) / frames


def giou_by_hand(one: Tensor, two: Tensor) -> float:
    (ax, ay, aw, ah), (bx, by, bw, bh) = one.tolist(), two.tolist()
    a, b = (
        (ax - aw / 2, ay - ah / 2, ax + aw / 2, ay + ah / 2),
        (bx - bw / 2, by - bh / 2, bx + bw / 2, by + bh / 2),
    )
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    union = aw * ah + bw * bh - common
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return common / union - (hull - union) / hull


def test_equation_10_values_of_one_pair() -> None:
    weights = {"bce_weight": 1, "dice_weight": 10, "class_weight": 100, "l1_weight": 2, "giou_weight": 3}
    options = Options.of(weights, S4, "paper")
    predicted, wanted = one_pair()
    losses = {name: term.item() for name, term in set_losses([predicted], [wanted], options).items()}
    # Mask probabilities 1/2 and 3/4 against 1 and 0; box (0,0,1,1) against (0,0,1/2,1); class 1/2 against 1.
    assert losses == pytest.approx(
        {
            "mask_bce": (math.log(2) + math.log(4)) / 2,
            "mask_dice": 10 * (1 - (2 * 0.5 + 1) / (1.25 + 1 + 1)),
            "class": 100 * 0.25 * 0.5**2 * math.log(2),
            "box_l1": 2 * (0.25 + 0.5),
            "box_giou": 3 * (1 - 0.5),
        },
        abs=1e-5,
    )


def test_equation_10_an_object_has_no_class_in_frames_without_it() -> None:
    predicted = FramePredictions(
        class_logits=torch.tensor([[[0.0]], [[math.log(3.0)]]]),
        boxes=torch.full((2, 1, 4), 0.5),
        mask_logits=torch.zeros(2, 1, 1, 2),
    )
    wanted = clip_objects(torch.tensor([[[1, 0]], [[0, 0]]]))
    loss = set_losses([predicted], [wanted], Options.of({"class_weight": 1}, S4, "paper"))["class"].item()
    # Probability 1/2 where the object is, 3/4 where it is not; one object in one frame to divide by.
    assert loss == pytest.approx(0.25 * 0.5**2 * math.log(2) + 0.75 * 0.75**2 * math.log(4), abs=1e-5)


def test_equation_10_the_cost_of_a_pair_is_its_loss_minus_that_of_no_object() -> None:
    options = Options.of({}, S4, "paper")
    predicted, wanted = one_pair()
    cost = matching_costs(predicted, predicted.mask_logits, wanted, options)
    alone = options.class_weight * 0.75 * 0.5**2 * math.log(2)
    total = sum(term.item() for term in set_losses([predicted], [wanted], options).values())
    assert cost.shape == (1, 1)
    assert cost.item() == pytest.approx(total - alone, abs=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_assignment_is_the_best_of_all_permutations(seed: int) -> None:
    options = Options.of({}, S4, "paper")
    predicted, wanted = random_set(seed)
    cost = matching_costs(predicted, predicted.mask_logits, wanted, options)
    by_hand = {
        order: loss_by_hand(predicted, wanted, order, options)
        for order in itertools.permutations(range(4), 3)
    }
    orders = list(by_hand)
    for order in orders[1:]:  # constant terms do not matter
        difference = sum(float(cost[q, j] - cost[orders[0][j], j]) for j, q in enumerate(order))
        assert difference == pytest.approx(by_hand[order] - by_hand[orders[0]], abs=1e-4), f"seed {seed}"
    from avsbench_methods.qdformer.loss import match

    queries, targets = match(predicted, predicted.mask_logits, wanted, options)
    found = {int(target): int(query) for query, target in zip(queries, targets, strict=True)}
    assert tuple(found[j] for j in range(3)) == min(by_hand, key=by_hand.__getitem__), f"seed {seed}"


def test_a_query_keeps_its_object_in_all_frames() -> None:
    """One assignment per clip: queries that swap objects between frames have a higher loss."""
    on, off = 20.0, -20.0
    left, right = torch.full((4, 4), off), torch.full((4, 4), off)
    left[:, :2], right[:, 2:] = on, on
    truth = torch.zeros(2, 4, 4, dtype=torch.int64)
    truth[:, :, :2], truth[:, :, 2:] = 1, 2

    def losses(second: list[Tensor]) -> float:
        predicted = FramePredictions(
            class_logits=torch.zeros(2, 2, 2),
            boxes=torch.full((2, 2, 4), 0.5),
            mask_logits=torch.stack([torch.stack([left, right]), torch.stack(second)]),
        )
        return set_losses([predicted], [clip_objects(truth)], Options.of({}, S4, "paper"))["mask_dice"].item()

    assert losses([left, right]) == pytest.approx(0, abs=1e-4)
    assert losses([right, left]) > 1


def test_more_objects_than_queries() -> None:
    masks = torch.arange(16).view(1, 4, 4)
    predicted = FramePredictions(draw(1, 2, 70), draw(1, 2, 4).sigmoid(), draw(1, 2, 4, 4))
    losses = set_losses([predicted], [clip_objects(masks)], Options.of({}, S4, "paper"))
    assert all(term.isfinite() for term in losses.values())
