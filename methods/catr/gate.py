"""Gates over the encoder's blocks (paper equation 6)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from .options import Options


class BlockGate(nn.Module, ABC):
    """Weights, adds and convolves the blocks' pixels, one block after the other.

    ``F = Conv(... Conv(Conv(F^1 + G^2 F^2) + G^3 F^3) ...)``: the paper has a gate for every pair of
    consecutive blocks, and therefore none for the first block. Its pixels are added without a weight
    (``gate_first_block``) or, as in the published code, used for the gates only.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        dim = options.dim
        self.add_first = options.gate_first_block
        self.merge = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), nn.BatchNorm2d(dim), nn.PReLU())
            for _ in range(options.encoder_layers - 1)
        )

    @abstractmethod
    def gates(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the weights (N,L-1,1) or (N,L-1,dim) of all L maps (N,dim,h,w) but the first."""

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Merge L maps (N,dim,h,w) into one."""
        weights = self.gates(maps)
        total = maps[0] if self.add_first else None
        for index, merge in enumerate(self.merge):
            weighted = weights[:, index, :, None, None] * maps[index + 1]
            total = merge(weighted if total is None else total + weighted)
        assert total is not None
        return total


class ChannelGate(BlockGate):
    """A convolution per pair of consecutive blocks, with one weight per channel (paper equation 6).

    With fewer weights than channels (paper Table 6) each weight is shared by consecutive channels.
    """

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        weights = options.gate_channels or options.dim
        self.share = options.dim // weights
        self.convs = nn.ModuleList(nn.Conv2d(2 * options.dim, weights, 3, padding=1) for _ in self.merge)

    def gates(self, maps: Sequence[Tensor]) -> Tensor:
        """Return weights (N,L-1,dim)."""
        weights = [_pool(conv, pair) for conv, pair in zip(self.convs, pairwise(maps), strict=True)]
        return torch.stack(weights, dim=1).repeat_interleave(self.share, dim=2)


class FrameGate(BlockGate):
    """One weight per frame and block, as released.

    One convolution with a channel per gate is shared by all pairs, and the mean of its sigmoid is the weight.
    """

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.own_pair = options.later_gates == "own_pair"
        self.conv = nn.Conv2d(2 * options.dim, len(self.merge), 3, padding=1)

    def gates(self, maps: Sequence[Tensor]) -> Tensor:
        """Return weights (N,L-1,1)."""
        pairs = pairwise(maps) if self.own_pair else [(maps[0], maps[1])]
        first, *later = (_pool(self.conv, pair) for pair in pairs)
        if self.own_pair:
            own = [pooled[:, gate] for gate, pooled in enumerate(later, start=1)]
        else:
            # The published code ignores the later pairs: it applies the sigmoid to the first pair's means
            # once more and averages over all channels.
            own = [first.sigmoid().mean(dim=1)] * (len(self.merge) - 1)
        return torch.stack((first[:, 0], *own), dim=1)[..., None]


def build_gate(options: Options) -> BlockGate | None:
    """Return the gate that the options select; ``None`` if only the last block is used."""
    if options.gate == "none":
        return None
    return ChannelGate(options) if options.gate == "channel" else FrameGate(options)


def _pool(conv: nn.Module, pair: Sequence[Tensor]) -> Tensor:
    """Convolve two maps (N,dim,h,w) and return the mean sigmoid of every output channel (N,C)."""
    convolved: Tensor = conv(torch.cat(tuple(pair), dim=1))
    return convolved.sigmoid().mean(dim=(2, 3))
