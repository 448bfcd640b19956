"""CATR as released: layers."""

from __future__ import annotations

from avsbench_methods.catr.layers import ReLUFeedForward

from avsbench_harness.testing.seeded import seeded_input

from .helpers import same


def test_feed_forward_is_linear_relu_linear() -> None:
    block = ReLUFeedForward(4, 8, dropout=0.9).eval()
    tokens = seeded_input(1, "tokens", (3, 4))
    hidden = (tokens @ block.linear1.weight.T + block.linear1.bias).clamp(min=0)
    same(block(tokens), hidden @ block.linear2.weight.T + block.linear2.bias)
