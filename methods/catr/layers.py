"""Parts that encoder and decoder share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from avsbench_harness.nn.attention import Attention, FeedForward

from .options import HEADS, Options


class ReLUFeedForward(FeedForward):
    """Two linear layers with a ReLU between, dropout after each of them."""

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        hidden = self.dropout(F.relu(self.linear1(tokens), inplace=True))
        contracted: Tensor = self.dropout(self.linear2(hidden))
        return contracted


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward block, each followed by its residual and normalisation (DETR)."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.self_attn = Attention(options.dim, HEADS, dropout=options.dropout)
        self.ffn = ReLUFeedForward(options.dim, options.ffn_dim, options.dropout)
        self.norm1 = nn.LayerNorm(options.dim)
        self.norm2 = nn.LayerNorm(options.dim)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, tokens: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        """(N,S,dim) -> the same; positions (S,dim) join queries and keys, the mask is (N,1,1,S) or none."""
        placed = tokens + positions
        attended = self.self_attn(placed, placed, tokens, mask=mask)
        tokens = self.norm1(tokens + self.dropout(attended))
        refined: Tensor = self.norm2(tokens + self.ffn(tokens))
        return refined
