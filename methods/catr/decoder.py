"""Queries, their kernels, and the map that the kernels read masks from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsbench_harness.nn.attention import Attention
from avsbench_harness.nn.dropout import Dropout

from .layers import ReLUFeedForward
from .options import GROUPS, HEADS, Options


class DecoderLayer(nn.Module):
    """Self-attention among queries, cross-attention to tokens, feed-forward; post-norm, as in DETR."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        dim = options.dim
        self.self_attn = Attention(dim, HEADS, dropout=options.dropout)
        self.cross_attn = Attention(dim, HEADS, dropout=options.dropout)
        self.ffn = ReLUFeedForward(dim, options.ffn_dim, options.dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)
        self.dropout = Dropout(options.dropout)

    def forward(
        self, found: Tensor, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
    ) -> Tensor:
        """What queries (Q,dim) have found so far (N,Q,dim), refined by tokens (N,S,dim)."""
        asking = found + queries
        found = self.norm1(found + self.dropout(self.self_attn(asking, asking, found)))
        read = self.cross_attn(found + queries, keys, values, mask=mask)
        found = self.norm2(found + self.dropout(read))
        refined: Tensor = self.norm3(found + self.ffn(found))
        return refined


class QueryDecoder(nn.Module):
    """Learned queries read the tokens of a frame (paper section 4.1).

    In the paper the sound of the frame is what queries start from, and the learned vectors say where they
    stand. The released queries start from nothing and are the same for every clip; they hear the sound
    through the sound tokens among those that they read.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.empty(options.queries, options.dim))
        self.layers = nn.ModuleList(DecoderLayer(options) for _ in range(options.decoder_layers))
        self.norm = nn.LayerNorm(options.dim)

    def forward(
        self, tokens: Tensor, positions: Tensor, mask: Tensor | None, sound: Tensor | None = None
    ) -> Tensor:
        """What every layer found, (L,N,Q,dim).

        Args:
            tokens: (N,S,dim).
            positions: their codes, (S,dim).
            mask: (N,1,1,S), which of them exist; ``None``: all.
            sound: (N,dim) of the frames, where it constrains the queries.
        """
        keys = tokens + positions
        shape = (len(tokens), *self.queries.shape)
        found = tokens.new_zeros(shape) if sound is None else sound[:, None].expand(shape)
        states = []
        for layer in self.layers:
            found = layer(found, self.queries, keys, tokens, mask)
            states.append(self.norm(found))
        return torch.stack(states)


class MaskFeature(nn.Module):
    """The map that masks are read from (paper section 4.1), a pyramid decoder over three maps.

    The paper's goes from the coarsest level up to the encoder's map at stride 8. The released one takes the
    encoder's map first and then the levels of strides 32 and 16, so that it shrinks first and ends at 16.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        dim = options.dim
        widths = (dim, dim, dim // 2, dim // 4, dim // 8)
        self.encoded_first = options.mask_stride == 16
        self.steps = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(GROUPS, after), nn.ReLU())
            for before, after in pairwise(widths)
        )
        self.laterals = nn.ModuleList(nn.Conv2d(dim, width, 1) for width in widths[2:4])
        self.output = nn.Conv2d(widths[-1], options.masks_channels, 3, padding=1)

    def forward(self, encoded: Tensor, stride16: Tensor, stride32: Tensor) -> Tensor:
        """The encoder's map at stride 8 and two levels (N,dim,...) -> (N,channels,H/stride,W/stride)."""
        order: Sequence[Tensor] = (stride32, stride16, encoded)
        if self.encoded_first:
            order = (encoded, stride32, stride16)
        maps = self.steps[0](order[0])
        for step, lateral, level in zip(self.steps[1:3], self.laterals, order[1:], strict=True):
            side = lateral(level)
            maps = side + F.interpolate(step(maps), size=side.shape[-2:], mode="nearest")
        feature: Tensor = self.output(self.steps[3](maps))
        return feature
