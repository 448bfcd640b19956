"""COMBO's loss, compared with the paper's equations."""

from __future__ import annotations

import math

import pytest
import torch
from avsbench_methods.combo.loss import FeatureProducts, consistency_loss, neighbours
from avsbench_methods.combo.options import Options

from avsbench_harness.tasks import AVSS

from .helpers_paper import VARIANTS


def angles(*turns: float) -> torch.Tensor:
    """Return unit vectors in the plane, each rotated from the previous one."""
    total = torch.tensor(turns).cumsum(0)
    return torch.stack((total.cos(), total.sin()), dim=1)


def turned(vectors: torch.Tensor, pairs: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return distances of pairs of vectors (N,2), as the only mask of frames with two pixels."""
    return FeatureProducts.of(vectors[:, None, None], pairs).distances(torch.ones(len(vectors), 1, 1))


def test_consistency_is_equation_7_summed_over_pairs_and_averaged_over_clips() -> None:
    vectors = angles(0, 0.3, 0.7, 5.0, 0.2, 1.1)  # two clips of three frames
    valid = torch.ones(2, 3, dtype=torch.bool)
    expected = 0.0
    for turn in (0.3, 0.7, 0.2, 1.1):
        similarity = math.cos(turn)
        expected += math.exp(similarity - 1) * (1 - similarity) / 2
    distances = turned(vectors, neighbours(valid, None))
    found = consistency_loss(distances, clips=2)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    mean = consistency_loss(distances)
    assert float(mean) == pytest.approx(expected / 2, rel=1e-5)


@pytest.mark.parametrize("learns", [True, False])
def test_gradients_through_the_adaptive_weight_are_optional(learns: bool) -> None:
    # d/dt of exp(-d) d with d = 1 - cos t is exp(-d) sin t (1 - d), and exp(-d) sin t with a constant weight.
    turn = torch.tensor(2.0, requires_grad=True)
    vectors = torch.stack((torch.tensor([1.0, 0.0]), torch.stack((turn.cos(), turn.sin()))))
    pairs = neighbours(torch.ones(1, 2, dtype=torch.bool), None)
    consistency_loss(turned(vectors, pairs), weight_learns=learns).backward()
    distance = 1 - math.cos(2.0)
    slope = math.exp(-distance) * math.sin(2.0) * (1 - distance if learns else 1)
    assert turn.grad is not None
    assert float(turn.grad) == pytest.approx(slope, rel=1e-4)


def test_all_ten_frames_are_one_chunk() -> None:
    paper, released = (Options.of({}, AVSS, variant) for variant in VARIANTS[::-1])
    valid = torch.ones(1, 10, dtype=torch.bool)
    assert len(neighbours(valid, paper.consistency_chunk)[0]) == 9
    assert len(neighbours(valid, released.consistency_chunk)[0]) == 8
