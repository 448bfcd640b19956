"""Matching of queries and targets at the lowest total cost."""

from __future__ import annotations

import torch
from torch import Tensor

from avsbench_harness.errors import AvsbError


@torch.compiler.disable  # type: ignore[untyped-decorator]
@torch.no_grad()
def hungarian(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Pair queries and targets one to one, so that the sum of the costs is as low as it can be.

    The Hungarian matching of DETR (Carion et al. 2020, equation 1). Where there are more queries than
    targets some queries stay alone, and the other way round. The solver runs on the CPU in float64, whatever
    the device and type of the costs; no gradient passes.

    Args:
        cost: (Q,G) of pairing query q with target g.

    Returns:
        Two int64 tensors (min(Q,G),) on the device of ``cost``: the paired queries in ascending order, and
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
