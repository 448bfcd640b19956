"""Bipartite matching of queries and targets."""

from __future__ import annotations

import torch
from torch import Tensor

from avsbench_harness.errors import AvsbError


@torch.compiler.disable  # type: ignore[untyped-decorator]
@torch.no_grad()
def hungarian(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Match queries and targets one to one at the lowest total cost.

    The Hungarian matching of DETR (Carion et al. 2020, equation 1). If there are more queries than targets,
    some queries stay unmatched, and vice versa. The solver runs on the CPU in float64 for every device and
    type of the costs; there is no gradient.

    Args:
        cost: (Q,G), cost of matching query q with target g.

    Returns:
        Two int64 tensors (min(Q,G),) on the device of ``cost``: the matched queries in ascending order, and
        the target of each.

    Raises:
        ValueError: ``cost`` is not a matrix.
        AvsbError: a cost is NaN or infinite, as happens when training diverges.
    """
    from scipy.optimize import linear_sum_assignment

    if cost.dim() != 2:
        raise ValueError(f"costs must be (queries, targets), got {tuple(cost.shape)}")
    matrix = cost.detach().to("cpu", torch.float64)
    if not matrix.isfinite().all():
        raise AvsbError(
            "Queries cannot be matched with masks because some costs are not finite numbers: training has "
            "diverged; lower the learning rate (--set optimizer.lr=...) or use precision fp32."
        )
    queries, targets = linear_sum_assignment(matrix.numpy())
    return (
        torch.as_tensor(queries, dtype=torch.int64, device=cost.device),
        torch.as_tensor(targets, dtype=torch.int64, device=cost.device),
    )
