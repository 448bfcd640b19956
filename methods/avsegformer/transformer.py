"""The three transformers: pixel encoder, query generator and query decoder.

All layers are post-norm, and queries have no position code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from avsbench_harness.nn.attention import Attention, FeedForward
from avsbench_harness.nn.deformable import MultiScaleDeformableAttention, cell_centres
from avsbench_harness.nn.dropout import Dropout
from avsbench_harness.nn.positions import sine_positions

from .options import Options


class EncoderLayer(nn.Module):
    """Multi-scale deformable self-attention and a feed-forward block."""

    def __init__(self, options: Options, levels: int) -> None:
        super().__init__()
        self.self_attn = MultiScaleDeformableAttention(options.dim, levels=levels)
        self.ffn = FeedForward(options.dim, options.ffn_dim, options.dropout)
        self.norm1 = nn.LayerNorm(options.dim)
        self.norm2 = nn.LayerNorm(options.dim)
        self.dropout = Dropout(options.dropout)

    def forward(
        self, tokens: Tensor, positions: Tensor, centres: Tensor, shapes: Sequence[tuple[int, int]]
    ) -> Tensor:
        """Refine tokens (N,S,dim) of all levels, with ``positions`` (S,dim) and ``centres`` (S,2)."""
        attended = self.self_attn(tokens + positions, centres, tokens, shapes)
        tokens = self.norm1(tokens + self.dropout(attended))
        refined: Tensor = self.norm2(tokens + self.ffn(tokens))
        return refined


class PixelEncoder(nn.Module):
    """Deformable self-attention among the coarser feature maps (paper section 3.3)."""

    def __init__(self, options: Options, levels: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(options, levels) for _ in range(options.encoder_layers))
        self.level_embedding = nn.Parameter(torch.empty(levels, options.dim))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Map feature maps (N,dim,h,w), finest first, to the concatenated tokens (N,S,dim) of all levels."""
        shapes = [(level.shape[2], level.shape[3]) for level in maps]
        dim = self.level_embedding.shape[1]
        tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in maps], dim=1)
        positions = torch.cat(
            [
                sine_positions(*shape, dim, device=tokens.device).flatten(0, 1) + embedding
                for shape, embedding in zip(shapes, self.level_embedding, strict=True)
            ]
        )
        centres = cell_centres(shapes, device=tokens.device)
        for layer in self.layers:
            tokens = layer(tokens, positions, centres, shapes)
        return tokens


class QueryLayer(nn.Module):
    """Self-attention among queries, cross-attention to a context, and a feed-forward block."""

    def __init__(self, dim: int, ffn_dim: int, *, bias: bool, dropout: float) -> None:
        super().__init__()
        self.self_attn = Attention(dim, bias=bias, dropout=dropout)
        self.cross_attn = Attention(dim, bias=bias, dropout=dropout)
        self.ffn = FeedForward(dim, ffn_dim, dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """Map queries (N,Q,dim) and context (N,S,dim) to (N,Q,dim)."""
        queries = self._self_attend(queries)
        return self._update(queries, self.cross_attn(queries, context))

    def with_attention(self, queries: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return also the attention of each query to each token, (N,Q,S), the mean over heads."""
        queries = self._self_attend(queries)
        attended, attention = self.cross_attn.with_weights(queries, context)
        return self._update(queries, attended), attention

    def _self_attend(self, queries: Tensor) -> Tensor:
        attended: Tensor = self.norm1(queries + self.dropout(self.self_attn(queries)))
        return attended

    def _update(self, queries: Tensor, attended: Tensor) -> Tensor:
        """Add the result of cross-attention (N,Q,dim), and apply the feed-forward block."""
        queries = self.norm2(queries + self.dropout(attended))
        updated: Tensor = self.norm3(queries + self.ffn(queries))
        return updated


class QueryGenerator(nn.Module):
    """Learned queries that attend to the audio token of a frame.

    A frame has one audio token, so cross-attention adds the same vector to all queries of the frame.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.empty(options.queries, options.dim))
        self.layers = nn.ModuleList(
            QueryLayer(options.dim, options.ffn_dim // 2, bias=False, dropout=0.0)
            for _ in range(options.generator_layers)
        )

    def forward(self, audio: Tensor) -> Tensor:
        """Map audio tokens (N,dim) to queries (N,Q,dim)."""
        # The initial queries are the same in every frame: one row, broadcast over the audio tokens.
        queries = self.queries[None]
        for layer in self.layers:
            queries = layer(queries, audio[:, None])
        return queries


class QueryDecoder(nn.Module):
    """Queries attend to the pixel tokens, by dense attention without positions (paper section 3.5)."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            QueryLayer(options.dim, options.ffn_dim, bias=True, dropout=options.dropout)
            for _ in range(options.decoder_layers)
        )

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Map queries (N,Q,dim) and pixel tokens (N,S,dim) to (N,Q,dim)."""
        for layer in self.layers:
            queries = layer(queries, tokens)
        return queries

    def layer_by_layer(self, queries: Tensor, tokens: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the queries (N,Q,dim) and attention maps (N,Q,S) of each layer, see ``with_attention``."""
        for layer in self.layers:
            assert isinstance(layer, QueryLayer)
            queries, attention = layer.with_attention(queries, tokens)
            yield queries, attention
