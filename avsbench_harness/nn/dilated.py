"""Sum of parallel dilated convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DilatedSum(nn.Module):
    """Sum of 3x3 convolutions with several dilations, for a large receptive field at full resolution.

    The published code of TPAVI and of CATR reduces each level of the backbone with it; their papers call it
    ASPP (DeepLab).
    """

    def __init__(self, channels: int, dim: int, dilations: Sequence[int] = (3, 6, 12, 18)) -> None:
        super().__init__()
        convs = [nn.Conv2d(channels, dim, 3, padding=dilation, dilation=dilation) for dilation in dilations]
        for conv in convs:
            nn.init.normal_(conv.weight, std=0.01)
        self.convs = nn.ModuleList(convs)

    def forward(self, maps: Tensor) -> Tensor:
        """(N,channels,h,w) -> (N,dim,h,w), channels last in memory."""
        maps = maps.contiguous(memory_format=torch.channels_last)
        size = max(maps.shape[-2:])
        parts: list[Tensor] = []
        weights: list[Tensor] = []
        biases: list[Tensor] = []
        for conv in self.convs:
            assert isinstance(conv, nn.Conv2d)
            assert conv.bias is not None
            if conv.dilation[0] < size:
                parts.append(conv(maps))
            else:  # all taps but the central one are in the zero padding
                weights.append(conv.weight[:, :, 1:2, 1:2])
                biases.append(conv.bias)
        if weights:
            # Not the sum of a stack: the gradients of the biases would be views of one tensor.
            parts.append(F.conv2d(maps, reduce(torch.add, weights), reduce(torch.add, biases)))
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total
