"""Attention between many tokens and few."""

from __future__ import annotations

import math

from torch import Tensor

from avsbench_harness.nn import attention


class NarrowAttention(attention.Attention):
    """The shared attention, with another order of matrix products if one side has few tokens.

    Between all pixels and a few audio tokens the projections of the pixels dominate the cost. By
    associativity the projection matrices are applied to the few tokens instead. Without dropout.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        *,
        mask: Tensor | None = None,
    ) -> Tensor:
        """See the base class; ``mask`` is boolean, (N,1,1,S)."""
        if key is None or value is None or self.dropout:
            return super().forward(query, key, value, mask=mask)
        queries, keys = query.shape[1], key.shape[1]
        if self.heads * min(queries, keys) > query.shape[2]:  # not few enough
            return super().forward(query, key, value, mask=mask)
        attend = self._few_keys if keys <= queries else self._few_queries
        return attend(query, key, value, mask)

    def _few_keys(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Use ``q (W_q^T k) = (q W_q^T) k``, and apply the output projection to the values beforehand."""
        keys = self._split(self._project(key, 1)) / math.sqrt(query.shape[2] // self.heads)  # (N,h,S,d)
        values = self._split(self._project(value, 2))
        weight, bias = self._heads(0)
        projected = (keys @ weight).flatten(1, 2)  # (N,h*S,dim)
        offset = (keys @ bias[..., None]).flatten(1)[:, None]  # (N,1,h*S)
        scores = (query @ projected.mT + offset).unflatten(2, (self.heads, -1))  # (N,Q,h,S)
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        output = self.out_proj.weight.T.unflatten(0, (self.heads, -1))  # (h,d,dim)
        outputs = (values @ output).flatten(1, 2)  # (N,h*S,dim)
        attended: Tensor = scores.softmax(dim=-1).to(outputs.dtype).flatten(2) @ outputs
        return attended + self.out_proj.bias

    def _few_queries(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Use ``(W_q q) (W_k k) = (W_k^T W_q q) k``, and project the weighted mean of the values.

        The bias of the keys adds a constant to all scores of a query, to which the softmax is invariant.
        """
        queries = self._split(self._project(query, 0)) / math.sqrt(query.shape[2] // self.heads)  # (N,h,Q,d)
        projected = (queries @ self._heads(1)[0]).flatten(1, 2)  # (N,h*Q,dim)
        scores = projected @ key.mT
        if mask is not None:
            scores = scores.masked_fill(~mask[:, 0], -math.inf)
        weight, bias = self._heads(2)
        means = (scores.softmax(dim=-1).to(value.dtype) @ value).unflatten(1, (self.heads, -1))  # (N,h,Q,dim)
        values = means @ weight.mT + bias[:, None]
        attended: Tensor = self.out_proj(values.transpose(1, 2).flatten(2))
        return attended

    def _heads(self, part: int) -> tuple[Tensor, Tensor]:
        """Return the queries' (0), keys' (1) or values' (2) projection per head: (h,d,dim) and bias (h,d)."""
        weight = self.in_proj.weight.chunk(3)[part]
        bias: Tensor = self.in_proj.bias.chunk(3)[part]
        return weight.unflatten(0, (self.heads, -1)), bias.unflatten(0, (self.heads, -1))
