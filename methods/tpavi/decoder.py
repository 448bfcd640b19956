"""After the interaction: from four levels to logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from avsbench_harness.nn.resampling import upsampled_conv2d


class ResidualUnit(nn.Module):
    """Two activated 3x3 convolutions and a skip around them.

    The published ReLU works in place on the unit's input, so that the skip adds the activated input; with
    ``inplace_relu=False`` it adds the input itself, which the published code reads like.
    """

    def __init__(self, dim: int, inplace_relu: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)
        self.inplace_relu = inplace_relu

    def forward(self, maps: Tensor) -> Tensor:
        """(N,dim,h,w) -> (N,dim,h,w)"""
        active = F.relu(maps)
        change: Tensor = self.conv2(F.relu(self.conv1(active)))
        return change + (active if self.inplace_relu else maps)


class FusionBlock(nn.Module):
    """Merges a level into what came from the coarser ones, and doubles the resolution."""

    def __init__(self, dim: int, inplace_relu: bool, *, coarsest: bool) -> None:
        super().__init__()
        self.level_unit = None if coarsest else ResidualUnit(dim, inplace_relu)
        self.unit = ResidualUnit(dim, inplace_relu)

    def forward(self, level: Tensor, coarse: Tensor | None, *, upsample: bool = True) -> Tensor:
        """Level (N,dim,h,w) and, but for the coarsest block, (N,dim,h,w) from below -> (N,dim,2h,2w).

        Without ``upsample`` the last step is left to the caller: (N,dim,h,w).
        """
        merged: Tensor = self.unit(level if self.level_unit is None else self.level_unit(level) + coarse)
        if not upsample:
            return merged
        return F.interpolate(merged, scale_factor=2, mode="bilinear", align_corners=True)


class Decoder(nn.Module):
    """Panoptic-FPN-like decoder (paper section 3.2): top-down over the levels, then the head."""

    def __init__(self, dim: int, channels: int, inplace_relu: bool) -> None:
        super().__init__()
        # From fine to coarse, as the levels.
        self.blocks = nn.ModuleList(
            FusionBlock(dim, inplace_relu, coarsest=stage == 4) for stage in (1, 2, 3, 4)
        )
        self.reduce = nn.Conv2d(dim, dim // 2, 3, padding=1)
        self.refine = nn.Conv2d(dim // 2, dim // 8, 3, padding=1)
        self.classify = nn.Conv2d(dim // 8, channels, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Four levels (N,dim,h/2^i,w/2^i), fine to coarse -> logits (N,channels,4h,4w)."""
        maps: Tensor | None = None
        for block, level in zip(reversed(self.blocks), reversed(levels), strict=True):
            maps = block(level, maps, upsample=block is not self.blocks[0])
        assert maps is not None
        # The finest block's upsampling and the head's first convolution in one: half the arithmetic.
        maps = upsampled_conv2d(maps, self.reduce.weight, self.reduce.bias, scale=2, align_corners=True)
        # Not quicker than the two steps one by one, but its backward pass is.
        maps = upsampled_conv2d(maps, self.refine.weight, self.refine.bias, scale=2)
        logits: Tensor = self.classify(F.relu(maps))
        return logits
