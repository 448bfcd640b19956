"""Transformer parts: multi-head attention and the feed-forward block."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Scaled dot-product attention with several heads (Vaswani et al. 2017, section 3.2).

    The three input projections are one matrix, as in ``torch.nn.MultiheadAttention``, so that weights load
    and initialise as there. Biases are everywhere or nowhere.
    """

    def __init__(self, dim: int, heads: int = 8, *, bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{dim} channels cannot be split between {heads} heads")
        self.heads = heads
        self.dropout = dropout
        self.in_proj = nn.Linear(dim, 3 * dim, bias=bias)
        self.out_proj = nn.Linear(dim, dim, bias=bias)
        nn.init.xavier_uniform_(self.in_proj.weight)
        if bias:
            nn.init.zeros_(self.in_proj.bias)
            nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        *,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Attend from ``query`` to ``key``, and read ``value``.

        Args:
            query: (N,Q,dim).
            key: (N,S,dim); the queries themselves by default.
            value: (N,S,dim); the keys themselves by default.
            mask: (Q,S) or broadcastable to (N,heads,Q,S), True where a query may look (or a float bias).

        Returns:
            (N,Q,dim)
        """
        if key is None:
            queries, keys, values = self.in_proj(query).chunk(3, dim=-1)
        elif key.shape[1] == 1 and mask is None and not self.dropout:
            return self._read_single(query, key if value is None else value)
        else:
            queries = self._project(query, 0)
            keys = self._project(key, 1)
            values = self._project(key if value is None else value, 2)
        attended = F.scaled_dot_product_attention(
            self._split(queries),
            self._split(keys),
            self._split(values),
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
        mixed: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return mixed

    def _read_single(self, query: Tensor, value: Tensor) -> Tensor:
        """The softmax over a single key is 1 whatever the query: everyone reads the same projected value."""
        read: Tensor = self.out_proj(self._project(value, 2))
        return read.expand(-1, query.shape[1], -1)

    def _project(self, tokens: Tensor, part: int) -> Tensor:
        """The queries' (0), the keys' (1) or the values' (2) third of the input projection."""
        weight = self.in_proj.weight.chunk(3)[part]
        bias = None if self.in_proj.bias is None else self.in_proj.bias.chunk(3)[part]
        return F.linear(tokens, weight, bias)

    def _split(self, tokens: Tensor) -> Tensor:
        """(N,L,dim) -> (N,heads,L,dim/heads)."""
        count, length, dim = tokens.shape
        return tokens.view(count, length, self.heads, dim // self.heads).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear layers with an exact GELU between, dropout after each of them."""

    def __init__(self, dim: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        hidden = self.dropout(F.gelu(self.linear1(tokens)))
        contracted: Tensor = self.dropout(self.linear2(hidden))
        return contracted
