"""The decoder: from four levels after the interaction to logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from avsbench_harness.nn.resampling import upsampled_conv2d


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions, each after a ReLU, with a skip connection.

    The published ReLU modifies the unit's input in place, so that the skip connection adds the activated
    input; with ``inplace_relu=False`` it adds the input itself, as the published code appears to intend.
    """

    def __init__(self, dim: int, inplace_relu: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)
        self.inplace_relu = inplace_relu

    def forward(self, maps: Tensor) -> Tensor:
        """Map (N,dim,h,w) to (N,dim,h,w)."""
        active = F.relu(maps)
        change: Tensor = self.conv2(F.relu(self.conv1(active)))
        return change + (active if self.inplace_relu else maps)


class FusionBlock(nn.Module):
    """Fuses a level with the output of the coarser levels and doubles the resolution."""

    def __init__(self, dim: int, inplace_relu: bool, *, coarsest: bool) -> None:
        super().__init__()
        self.level_unit = None if coarsest else ResidualUnit(dim, inplace_relu)
        self.unit = ResidualUnit(dim, inplace_relu)

    def forward(self, level: Tensor, coarse: Tensor | None, *, upsample: bool = True) -> Tensor:
        """Map a level (N,dim,h,w) and the output (N,dim,h,w) of the coarser block to (N,dim,2h,2w).

        The coarsest block has no second input. Without ``upsample`` the result is (N,dim,h,w).
        """
        merged: Tensor = self.unit(level if self.level_unit is None else self.level_unit(level) + coarse)
        if not upsample:
            return merged
        return F.interpolate(merged, scale_factor=2, mode="bilinear", align_corners=True)


class Decoder(nn.Module):
    """Panoptic-FPN-like decoder (paper section 3.2): top-down over the levels, then the head."""

    def __init__(self, dim: int, channels: int, inplace_relu: bool) -> None:
        super().__init__()
        # Fine to coarse, in the order of the levels.
        self.blocks = nn.ModuleList(
            FusionBlock(dim, inplace_relu, coarsest=stage == 4) for stage in (1, 2, 3, 4)
        )
        self.reduce = nn.Conv2d(dim, dim // 2, 3, padding=1)
        self.refine = nn.Conv2d(dim // 2, dim // 8, 3, padding=1)
        self.classify = nn.Conv2d(dim // 8, channels, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Map four levels (N,dim,h/2^i,w/2^i), fine to coarse, to logits (N,channels,4h,4w)."""
        maps: Tensor | None = None
        for block, level in zip(reversed(self.blocks), reversed(levels), strict=True):
            maps = block(level, maps, upsample=block is not self.blocks[0])
        assert maps is not None
        # The finest block's upsampling fused with the head's first convolution: half the arithmetic.
        maps = upsampled_conv2d(maps, self.reduce.weight, self.reduce.bias, scale=2, align_corners=True)
        # As fast as the two steps, with a faster backward pass.
        maps = upsampled_conv2d(maps, self.refine.weight, self.refine.bias, scale=2)
        logits: Tensor = self.classify(F.relu(maps))
        return logits
