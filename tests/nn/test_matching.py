from __future__ import annotations

import itertools

import pytest
import torch

from avsbench_harness.errors import AvsbError
from avsbench_harness.nn.matching import hungarian


def test_by_hand() -> None:
    # Greedy matching takes (0, 1) first, which leaves (1, 0) and costs 1 + 10.
    queries, targets = hungarian(torch.tensor([[2.0, 1.0], [10.0, 3.0]]))
    assert (queries.tolist(), targets.tolist()) == ([0, 1], [0, 1])


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_no_other_matching_has_a_lower_cost(shape: tuple[int, int]) -> None:
    cost = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    queries, targets = hungarian(cost)
    assert queries.dtype == targets.dtype == torch.int64
    assert queries.tolist() == sorted(set(queries.tolist()))
    assert len(set(targets.tolist())) == len(queries) == min(shape)
    tall = cost if shape[0] >= shape[1] else cost.T
    best = min(
        sum(float(tall[row, column]) for column, row in enumerate(rows))
        for rows in itertools.permutations(range(tall.shape[0]), tall.shape[1])
    )
    assert float(cost[queries, targets].sum()) == pytest.approx(best, rel=1e-6)


def test_no_targets_give_no_matches() -> None:
    queries, targets = hungarian(torch.zeros(5, 0))
    assert queries.shape == targets.shape == (0,)


def test_half_precision_and_costs_with_gradients() -> None:
    cost = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.bfloat16, requires_grad=True)
    queries, targets = hungarian(cost)
    assert (queries.tolist(), targets.tolist()) == ([0, 1], [1, 0])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_costs_that_are_not_finite_are_refused(value: float) -> None:
    cost = torch.zeros(3, 2)
    cost[1, 1] = value
    with pytest.raises(AvsbError, match="training has diverged"):
        hungarian(cost)


def test_costs_must_be_a_matrix() -> None:
    with pytest.raises(ValueError, match="queries, targets"):
        hungarian(torch.zeros(3))


@pytest.mark.gpu
def test_matches_are_on_the_device_of_the_costs() -> None:
    queries, targets = hungarian(torch.eye(2, device="cuda"))
    assert queries.device.type == targets.device.type == "cuda"
    assert targets.tolist() == [1, 0]
