"""Sampling maps at points, and selecting uncertain points for mask losses.

Kirillov et al., "PointRend" (CVPR 2020, section 3.1); as a mask loss: Cheng et al., "Mask2Former" (CVPR 2022,
section 3.3).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Sample maps bilinearly; values outside of a map are zero.

    Args:
        maps: (N,C,h,w).
        points: (N,P,2), (x, y) in [0, 1] from the map's upper left to its lower right corner.

    Returns:
        (N,C,P)
    """
    grid = (2 * points - 1)[:, :, None].to(maps.dtype)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[..., 0]


@torch.no_grad()
def uncertain_points(
    logits: Tensor, count: int, *, oversample: float = 3.0, importance: float = 0.75
) -> Tensor:
    """Draw random points, most of them where a mask is uncertain.

    ``count * oversample`` candidates are drawn from the global generator; those whose logits are nearest to 0
    make up the share ``importance`` of the points, and new uniform draws the rest.

    Args:
        logits: (M,h,w), one map per mask.
        count: points per mask.
        oversample: candidates per point, at least 1.
        importance: share of uncertain points, in [0, 1].

    Returns:
        (M,count,2), (x, y) in [0, 1]
    """
    if oversample < 1 or not 0 <= importance <= 1:
        raise ValueError(f"oversample {oversample} must be at least 1, importance {importance} in [0, 1]")
    masks = len(logits)
    candidates = torch.rand(masks, int(count * oversample), 2, device=logits.device)
    certainty = sample_points(logits[:, None], candidates)[:, 0].abs()
    uncertain = int(importance * count)
    chosen = certainty.topk(uncertain, dim=1, largest=False, sorted=False).indices
    chosen = chosen[..., None].expand(-1, -1, 2)
    fresh = torch.rand(masks, count - uncertain, 2, device=logits.device)
    return torch.cat((candidates.gather(1, chosen), fresh), dim=1)
