"""Attention between many tokens and few."""

from __future__ import annotations

import math

from torch import Tensor

from avsbench_harness.nn import attention


class NarrowAttention(attention.Attention):
    """The shared attention, which multiplies its matrices in another order where one side has few tokens.

    Between all pixels and a handful of sound tokens the projections of the pixels are most of the work. They
    are matrix products like the attention around them, so that the few tokens can be taken through the
    matrices instead. Without dropout.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        *,
        mask: Tensor | None = None,
    ) -> Tensor:
        """See the shared one; a ``mask`` is boolean, (N,1,1,S)."""
        if key is None or value is None or self.dropout:
            return super().forward(query, key, value, mask=mask)
        asking, asked = query.shape[1], key.shape[1]
        if self.heads * min(asking, asked) > query.shape[2]:  # not few enough
            return super().forward(query, key, value, mask=mask)
        read = self._few_keys if asked <= asking else self._few_queries
        return read(query, key, value, mask)

    def _few_keys(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """``q (W_q^T k) = (q W_q^T) k``, and the values leave through the last projection beforehand."""
        keys = self._split(self._project(key, 1)) / math.sqrt(query.shape[2] // self.heads)  # (N,h,S,d)
        values = self._split(self._project(value, 2))
        weight, bias = self._heads(0)
        wanted = (keys @ weight).flatten(1, 2)  # (N,h*S,dim)
        offset = (keys @ bias[..., None]).flatten(1)[:, None]  # (N,1,h*S)
        scores = (query @ wanted.mT + offset).unflatten(2, (self.heads, -1))  # (N,Q,h,S)
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        leaving = self.out_proj.weight.T.unflatten(0, (self.heads, -1))  # (h,d,dim)
        answers = (values @ leaving).flatten(1, 2)  # (N,h*S,dim)
        read: Tensor = scores.softmax(dim=-1).to(answers.dtype).flatten(2) @ answers
        return read + self.out_proj.bias

    def _few_queries(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """``(W_q q) (W_k k) = (W_k^T W_q q) k``, and the projection of a mean is the mean of projections.

        The bias of the keys adds the same to all scores of a query, which the softmax does not see.
        """
        queries = self._split(self._project(query, 0)) / math.sqrt(query.shape[2] // self.heads)  # (N,h,Q,d)
        wanted = (queries @ self._heads(1)[0]).flatten(1, 2)  # (N,h*Q,dim)
        scores = wanted @ key.mT
        if mask is not None:
            scores = scores.masked_fill(~mask[:, 0], -math.inf)
        weight, bias = self._heads(2)
        seen = (scores.softmax(dim=-1).to(value.dtype) @ value).unflatten(1, (self.heads, -1))  # (N,h,Q,dim)
        values = seen @ weight.mT + bias[:, None]
        read: Tensor = self.out_proj(values.transpose(1, 2).flatten(2))
        return read

    def _heads(self, part: int) -> tuple[Tensor, Tensor]:
        """The queries' (0), keys' (1) or values' (2) projection by heads: matrix (h,d,dim), bias (h,d)."""
        weight = self.in_proj.weight.chunk(3)[part]
        bias: Tensor = self.in_proj.bias.chunk(3)[part]
        return weight.unflatten(0, (self.heads, -1)), bias.unflatten(0, (self.heads, -1))
