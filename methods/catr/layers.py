"""Transformer layers of encoder and decoder."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from avsbench_harness.nn.attention import Attention, FeedForward
from avsbench_harness.nn.dropout import Dropout, draw_kept

from .options import HEADS, Options

#: Rows per chunk of a feed-forward block on the CPU.
ROWS = 256


class DroppedReLU(torch.autograd.Function):
    """``dropout(relu(x))`` in place; the backward pass needs only the result.

    For the CPU, with values of any shape and the dropout rate.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, rate: float) -> Tensor:
        """Apply both in place."""
        kept, ctx.factor = draw_kept(values.shape, rate)
        ctx.mark_dirty(values)
        values.relu_().mul_(kept.to(values.dtype).mul_(ctx.factor))
        ctx.save_for_backward(values)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Pass the gradient where the result is positive."""
        (result,) = ctx.saved_tensors
        return (gradient * ctx.factor).masked_fill_(result <= 0, 0.0), None


class ReLUFeedForward(FeedForward):
    """Two linear layers with a ReLU in between, and dropout after both."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (...,dim) to (...,dim)."""
        if tokens.device.type == "cpu" and not torch.is_grad_enabled():
            rows = tokens.flatten(0, -2)
            if rows.dtype == self.linear1.weight.dtype and not torch.is_autocast_enabled("cpu"):
                return self._refine_in_place(rows).view(tokens.shape)
        hidden = self.linear1(tokens)
        rate = self.dropout.p
        if self.training and rate and hidden.device.type == "cpu" and hidden.requires_grad:
            hidden = DroppedReLU.apply(hidden, rate)
        else:
            hidden = self.dropout(F.relu(hidden, inplace=True))
        contracted: Tensor = self.dropout(self.linear2(hidden))
        return contracted

    def _refine_in_place(self, rows: Tensor) -> Tensor:
        """Refine rows (M,dim) without gradients, in chunks whose hidden layer fits the processor's cache."""
        refined = torch.empty_like(rows)
        buffer = rows.new_empty(min(len(rows), ROWS), self.linear1.out_features)
        for part, result in zip(rows.split(ROWS), refined.split(ROWS), strict=True):
            hidden = buffer[: len(part)]
            torch.addmm(self.linear1.bias, part, self.linear1.weight.T, out=hidden)
            torch.addmm(self.linear2.bias, self.dropout(hidden.relu_()), self.linear2.weight.T, out=result)
        return self.dropout(refined)


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward block, each followed by its residual and normalisation (DETR)."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.self_attn = Attention(options.dim, HEADS, dropout=options.dropout)
        self.ffn = ReLUFeedForward(options.dim, options.ffn_dim, options.dropout)
        self.norm1 = nn.LayerNorm(options.dim)
        self.norm2 = nn.LayerNorm(options.dim)
        self.dropout = Dropout(options.dropout)

    def forward(self, tokens: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        """Map (N,S,dim) to (N,S,dim); positions (S,dim) are added to queries and keys, mask (N,1,1,S)."""
        placed = tokens + positions
        attended = self.self_attn(placed, placed, tokens, mask=mask)
        tokens = self.norm1(tokens + self.dropout(attended))
        refined: Tensor = self.norm2(tokens + self.ffn(tokens))
        return refined
