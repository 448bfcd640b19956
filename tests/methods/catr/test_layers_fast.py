"""CATR's faster layers, compared with plain formulas."""

from __future__ import annotations

import pytest
import torch
from avsbench_methods.catr import layers
from avsbench_methods.catr.layers import ROWS, DroppedReLU, ReLUFeedForward

from avsbench_harness.testing.seeded import seeded_input

from .helpers_fast import draw


def test_dropped_relu_and_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = draw("lost", 4, 6) > 0.5
    monkeypatch.setattr(layers, "draw_kept", lambda shape, rate: (~lost, 1 / (1 - rate)))
    values = draw("values", 4, 6).requires_grad_()
    result = DroppedReLU.apply(values * 1, 0.25)
    expected = values.clamp(min=0) * ~lost / (1 - 0.25)
    torch.testing.assert_close(result, expected)
    incoming = draw("gradient", 4, 6)
    torch.testing.assert_close(
        torch.autograd.grad((result * incoming).sum(), values),
        torch.autograd.grad((expected * incoming).sum(), values),
    )


@pytest.mark.parametrize("training", [False, True])
def test_feed_forward_is_the_same_without_gradients(training: bool) -> None:
    torch.manual_seed(0)
    block = ReLUFeedForward(16, 32, dropout=0.0 if training else 0.9).train(training)
    tokens = seeded_input(1, "tokens", (2, ROWS, 16))[:, : ROWS - 56]  # not a whole number of parts
    hidden = (tokens @ block.linear1.weight.T + block.linear1.bias).clamp(min=0)
    expected = hidden @ block.linear2.weight.T + block.linear2.bias
    torch.testing.assert_close(block(tokens), expected)
    with torch.no_grad():
        torch.testing.assert_close(block(tokens), expected)


def test_feed_forward_drops_with_and_without_gradients() -> None:
    torch.manual_seed(3)
    block = ReLUFeedForward(16, 32, dropout=0.5).train()
    tokens = seeded_input(1, "tokens", (2, 40, 16))
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            assert (block(tokens) == 0).float().mean().item() == pytest.approx(0.5, abs=0.1), "seed 3"
