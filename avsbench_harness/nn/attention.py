"""Transformer blocks: multi-head attention and the feed-forward block."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from avsbench_harness.nn.dropout import Dropout, draw_kept, dropout


class Attention(nn.Module):
    """Scaled dot-product attention with several heads (Vaswani et al. 2017, section 3.2).

    The three input projections are one matrix, as in ``torch.nn.MultiheadAttention``, so that weights load
    and initialise as there. ``bias`` applies to all projections.
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
        """Attend from ``query`` to ``key`` and ``value``.

        Args:
            query: (N,Q,dim).
            key: (N,S,dim); defaults to the queries.
            value: (N,S,dim); defaults to the keys.
            mask: (Q,S) or broadcastable to (N,heads,Q,S), True where a query may attend (or a float bias).

        Returns:
            (N,Q,dim)
        """
        if key is None:
            queries, keys, values = self.in_proj(query).chunk(3, dim=-1)
        elif key.shape[1] == 1 and mask is None and not self.dropout:
            return self._attend_to_single(query, key if value is None else value)
        else:
            queries = self._project(query, 0)
            keys = self._project(key, 1)
            values = self._project(key if value is None else value, 2)
        rate = self.dropout if self.training else 0.0
        parts = self._split(queries), self._split(keys), self._split(values)
        # Under autocast the projections are of half precision, and PyTorch's own attention is used.
        if rate and mask is None and queries.device.type == "cpu" and queries.dtype == torch.float32:
            attended: Tensor = _DroppedAttention.apply(*parts, rate)
        else:
            attended = F.scaled_dot_product_attention(*parts, attn_mask=mask, dropout_p=rate)
        mixed: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return mixed

    def with_weights(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Attend from queries (N,Q,dim) to keys (N,S,dim), and return also the weights (N,Q,S).

        The weights are averaged over heads. In training, dropout applies to the returned weights too, as in
        ``torch.nn.MultiheadAttention``.
        """
        queries, keys, values = (
            self._split(self._project(tokens, part)) for part, tokens in enumerate((query, key, key))
        )
        weights = ((queries * _scale(queries)) @ keys.transpose(2, 3)).softmax(dim=-1)
        weights = dropout(weights, self.dropout, self.training)
        mixed: Tensor = self.out_proj((weights @ values).transpose(1, 2).flatten(2))
        return mixed, weights.mean(dim=1)

    def head_weights(self, query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention weights of each head, (N,heads,Q,S); arguments as in :meth:`forward`, without dropout."""
        queries, keys = self._split(self._project(query, 0)), self._split(self._project(key, 1))
        scores = (queries * _scale(queries)) @ keys.transpose(2, 3)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        weights: Tensor = scores.softmax(dim=-1)
        return weights

    def _attend_to_single(self, query: Tensor, value: Tensor) -> Tensor:
        """The softmax over a single key is 1 for every query, so all queries get the same projected value."""
        attended: Tensor = self.out_proj(self._project(value, 2))
        return attended.expand(-1, query.shape[1], -1)

    def _project(self, tokens: Tensor, part: int) -> Tensor:
        """Apply one third of the input projection: of the queries (0), keys (1) or values (2)."""
        weight = self.in_proj.weight.chunk(3)[part]
        bias = None if self.in_proj.bias is None else self.in_proj.bias.chunk(3)[part]
        return F.linear(tokens, weight, bias)

    def _split(self, tokens: Tensor) -> Tensor:
        """(N,L,dim) -> (N,heads,L,dim/heads)."""
        count, length, dim = tokens.shape
        return tokens.view(count, length, self.heads, dim // self.heads).transpose(1, 2)


class _DroppedAttention(torch.autograd.Function):
    """Scaled dot-product attention with dropout on its weights, for the CPU.

    PyTorch has no fused kernel with dropout on the CPU. Inputs of the batch are processed one by one, so that
    the attention weights stay in the processor's cache; softmax and dropout share one backward pass (Dao et
    al., "FlashAttention", 2022, appendix B.2).
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, rate: float) -> Tensor:
        """(N,heads,Q,d), (N,heads,S,d), (N,heads,S,d) -> (N,heads,Q,d)."""
        attended, saved = [], []
        for query, key, value in zip(queries * _scale(queries), keys, values, strict=True):
            weights = torch.bmm(query, key.transpose(1, 2)).softmax(dim=-1)
            kept, factor = draw_kept(weights.shape, rate)
            attended.append(torch.bmm(kept.to(weights.dtype).mul_(weights), value).mul_(factor))
            saved += [weights, kept]
        result = torch.stack(attended) if attended else torch.empty_like(queries)
        ctx.factor = factor if attended else 1.0
        ctx.save_for_backward(queries, keys, values, result, *saved)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of queries, keys and values."""
        queries, keys, values, result, *saved = ctx.saved_tensors
        # The softmax subtracts a row's mean gradient under its weights, which include the dropped ones.
        means = (gradient * result).sum(dim=-1, keepdim=True)
        gradient = gradient * ctx.factor
        found: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
        for index, (weights, kept) in enumerate(zip(saved[::2], saved[1::2], strict=True)):
            dropped = kept.to(weights.dtype).mul_(weights)
            found[2].append(torch.bmm(dropped.transpose(1, 2), gradient[index]))
            # weights * (kept * factor * (gradient of the result, times values) - mean)
            scores = torch.bmm(gradient[index], values[index].transpose(1, 2)).mul_(dropped)
            scores.addcmul_(weights, means[index], value=-1)
            found[0].append(torch.bmm(scores, keys[index]))
            found[1].append(torch.bmm(scores.transpose(1, 2), queries[index]))
        if not saved:
            return torch.zeros_like(queries), torch.zeros_like(keys), torch.zeros_like(values), None
        scale = _scale(queries)
        return (
            torch.stack(found[0]).mul_(scale),
            torch.stack(found[1]).mul_(scale),
            torch.stack(found[2]),
            None,
        )


def _scale(queries: Tensor) -> float:
    """1 / sqrt(channels of a head)."""
    return float(queries.shape[-1] ** -0.5)


class FeedForward(nn.Module):
    """Two linear layers with an exact GELU in between and dropout after each."""

    def __init__(self, dim: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        hidden = self.dropout(F.gelu(self.linear1(tokens)))
        contracted: Tensor = self.dropout(self.linear2(hidden))
        return contracted
