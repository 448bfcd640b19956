"""The query decoder, and the mask feature to which the kernels are applied."""

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
        self, states: Tensor, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Refine the states (N,Q,dim) of the queries (Q,dim) by attention to tokens (N,S,dim)."""
        placed = states + queries
        states = self.norm1(states + self.dropout(self.self_attn(placed, placed, states)))
        attended = self.cross_attn(states + queries, keys, values, mask=mask)
        states = self.norm2(states + self.dropout(attended))
        refined: Tensor = self.norm3(states + self.ffn(states))
        return refined


class QueryDecoder(nn.Module):
    """Queries that attend to the tokens of a frame (paper section 4.1).

    In the paper the initial state of the queries is the audio of the frame, and the learned vectors are
    their positions. The initial state of the released queries is zero, the same for every clip; they use the
    audio through the audio tokens that they attend to. Without audio (paper section 5.4) the features of the
    frame's pixels are the queries, and the pixels' position codes their positions.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        learned = options.query_source != "video"
        self.queries = nn.Parameter(torch.empty(options.queries, options.dim)) if learned else None
        self.layers = nn.ModuleList(DecoderLayer(options) for _ in range(options.decoder_layers))
        self.norm = nn.LayerNorm(options.dim)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        mask: Tensor | None,
        initial: Tensor | None = None,
        queries: Tensor | None = None,
    ) -> Tensor:
        """Return the queries' states after every layer, (L,N,Q,dim).

        Args:
            tokens: (N,S,dim).
            positions: their position codes, (S,dim).
            mask: (N,1,1,S) bool, valid tokens; ``None``: all.
            initial: initial states of the queries, (N,Q,dim), or (N,1,dim) for all; ``None``: zeros.
            queries: positions of the queries (Q,dim); ``None``: the learned vectors.
        """
        queries = self.queries if queries is None else queries
        assert queries is not None  # learned, or given
        keys = tokens + positions
        shape = (len(tokens), *queries.shape)
        current = tokens.new_zeros(shape) if initial is None else initial.expand(shape)
        states = []
        for layer in self.layers:
            current = layer(current, queries, keys, tokens, mask)
            states.append(self.norm(current))
        return torch.stack(states)


class MaskFeature(nn.Module):
    """The mask feature (paper section 4.1): a pyramid decoder over three maps.

    In the paper it goes from the coarsest level up to the encoder's map at stride 8. In the released code it
    starts with the encoder's map, followed by the levels of strides 32 and 16, and ends at stride 16.
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
        self.output = nn.Conv2d(widths[-1], options.mask_channels, 3, padding=1)

    def forward(self, encoded: Tensor, stride16: Tensor, stride32: Tensor) -> Tensor:
        """Map the encoder's map at stride 8 and two levels (N,dim,...) to (N,channels,H/stride,W/stride)."""
        order: Sequence[Tensor] = (stride32, stride16, encoded)
        if self.encoded_first:
            order = (encoded, stride32, stride16)
        maps = self.steps[0](order[0])
        for step, lateral, level in zip(self.steps[1:3], self.laterals, order[1:], strict=True):
            side = lateral(level)
            maps = side + F.interpolate(step(maps), size=side.shape[-2:], mode="nearest")
        feature: Tensor = self.output(self.steps[3](maps))
        return feature
