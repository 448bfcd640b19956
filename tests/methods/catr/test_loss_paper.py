"""CATR's loss, compared with the paper's equations."""

from __future__ import annotations

import math

import pytest
import torch
from avsbench_methods.catr.loss import Targets, clip_losses, matching_cost
from torch import Tensor

from avsbench_harness.testing.seeded import seeded_input

from .helpers_paper import options


def dice_by_hand(logits: Tensor, truth: Tensor, squares: bool) -> float:
    overlap = extent = 0.0
    for logit, true in zip(logits.flatten().tolist(), truth.flatten().tolist(), strict=True):
        probability = 1 / (1 + math.exp(-logit))
        overlap += probability * true
        extent += probability**2 + true**2 if squares else probability + true
    return 2 * overlap / (extent + 2e-3) if squares else (2 * overlap + 1) / (extent + 1)


@pytest.mark.parametrize("dice", ["squares", "sums"])
@pytest.mark.parametrize("by", ["cross_entropy", "probability"])
def test_matching_by_equation_8(by: str, dice: str) -> None:
    chosen = options(match_reference=2.0, match_dice=3.0, match_reference_by=by, dice=dice)
    truth = torch.zeros(2, 4, 4, dtype=torch.int64)
    truth[0, :2], truth[1, 1:, 3] = 5, 2  # class 5 in the first frame, class 2 in the second
    targets = Targets.of(truth, 71, chosen)
    assert targets.references.tolist() == [[70, 1], [4, 70]]
    reference, masks = seeded_input(1, "reference", (2, 3, 71)), seeded_input(1, "masks", (2, 3, 4, 4))
    found = matching_cost(reference, masks, targets, chosen)
    assert found.shape == (3, 2)
    for query in range(3):
        for target, label in enumerate((2, 5)):
            costs = []
            for frame in range(2):
                seen = (truth[frame] == label).float()
                output = label - 1 if seen.any() else 70
                probability = reference[frame, query].softmax(dim=0)[output].item()
                entropy = -math.log(probability) if by == "cross_entropy" else -probability
                coefficient = dice_by_hand(masks[frame, query], seen, dice == "squares")
                costs.append(2 * entropy - 3 * coefficient)
            assert found[query, target].item() == pytest.approx(sum(costs) / 2, abs=1e-5)


def test_loss_by_equation_9() -> None:
    chosen = options()
    truth = torch.zeros(2, 4, 4, dtype=torch.int64)
    truth[0, :2], truth[:, 3, 3] = 5, 2
    reference, masks = seeded_input(1, "reference", (2, 4, 71)), seeded_input(1, "masks", (2, 4, 4, 4))
    masks[:, 3] = 20 * ((truth == 5).float() - 0.5)  # query 3 is class 5, query 1 is class 2
    masks[:, 1] = 20 * ((truth == 2).float() - 0.5)
    terms = clip_losses(reference, masks, Targets.of(truth, 71, chosen), chosen)
    assert set(terms) == {"reference", "dice", "focal"}
    entropy = -reference.log_softmax(dim=-1)
    targets_of = {(0, 3): 4, (0, 1): 1, (1, 1): 1}  # output of (frame, query) with an object
    total = sum(
        float(entropy[frame, query, targets_of.get((frame, query), 70)])
        * (1.0 if (frame, query) in targets_of else 0.1)
        for frame in range(2)
        for query in range(4)
    )
    assert terms["reference"].item() == pytest.approx(total / 2, rel=1e-5)
    # Three masks are right; of the fourth, empty one, the coefficient is 0.
    assert terms["dice"].item() == pytest.approx(0.25, abs=1e-3)
    assert terms["focal"] < 1e-6
