"""Transformer layers of all modules; post-norm, as in DETR (Carion et al. 2020)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from avsbench_harness.nn.attention import Attention

from .options import Options


class FeedForwardBlock(nn.Module):
    """``LN(FFN(x) + x)`` with a ReLU between the two linear layers."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.linear1 = nn.Linear(options.dim, options.ffn_dim)
        self.linear2 = nn.Linear(options.ffn_dim, options.dim)
        self.dropout = nn.Dropout(options.dropout)
        self.norm = nn.LayerNorm(options.dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (...,dim) to (...,dim)."""
        hidden = self.dropout(F.relu(self.linear1(tokens)))
        updated: Tensor = self.norm(tokens + self.dropout(self.linear2(hidden)))
        return updated


class AttentionBlock(nn.Module):
    """``LN(MHA(x, memory) + x)``; positions are added to queries and keys, never to values."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.attention = Attention(options.dim, options.heads, dropout=options.dropout)
        self.dropout = nn.Dropout(options.dropout)
        self.norm = nn.LayerNorm(options.dim)

    def forward(
        self,
        tokens: Tensor,
        memory: Tensor,
        *,
        positions: Tensor | float = 0.0,
        memory_positions: Tensor | float = 0.0,
        allowed: Tensor | None = None,
    ) -> Tensor:
        """Attend from the tokens to the memory.

        Args:
            tokens: (M,Q,dim).
            memory: (M,S,dim).
            positions: position codes of the tokens, broadcastable to them.
            memory_positions: position codes of the memory, broadcastable to it.
            allowed: (M,S) bool, valid entries of the memory; ``None``: all.

        Returns:
            (M,Q,dim)
        """
        mask = None if allowed is None else allowed[:, None, None]
        attended = self.attention(tokens + positions, memory + memory_positions, memory, mask=mask)
        updated: Tensor = self.norm(tokens + self.dropout(attended))
        return updated


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward block."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.self_attn = AttentionBlock(options)
        self.ffn = FeedForwardBlock(options)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Map tokens (M,S,dim) with positions (S,dim) to (M,S,dim)."""
        attended = self.self_attn(tokens, tokens, positions=positions, memory_positions=positions)
        updated: Tensor = self.ffn(attended)
        return updated


class DecoderLayer(nn.Module):
    """Self-attention among the queries, cross-attention to the memory and a feed-forward block."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.self_attn = AttentionBlock(options)
        self.cross_attn = AttentionBlock(options)
        self.ffn = FeedForwardBlock(options)

    def forward(
        self,
        queries: Tensor,
        memory: Tensor,
        *,
        positions: Tensor | float = 0.0,
        memory_positions: Tensor | float = 0.0,
        allowed: Tensor | None = None,
    ) -> Tensor:
        """Map queries (M,Q,dim) and memory (M,S,dim) to (M,Q,dim); see :meth:`AttentionBlock.forward`."""
        queries = self.self_attn(queries, queries, positions=positions, memory_positions=positions)
        queries = self.cross_attn(
            queries, memory, positions=positions, memory_positions=memory_positions, allowed=allowed
        )
        updated: Tensor = self.ffn(queries)
        return updated


def two_layers(dim_in: int, hidden: int, dim_out: int) -> nn.Sequential:
    """Return a two-layer MLP with a ReLU, as in the paper's heads and filters."""
    return nn.Sequential(nn.Linear(dim_in, hidden), nn.ReLU(), nn.Linear(hidden, dim_out))
