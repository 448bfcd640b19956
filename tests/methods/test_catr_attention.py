"""CATR's quicker attention and feed-forward blocks against plain formulas."""

from __future__ import annotations

import pytest
import torch
from avsbench_methods.catr import layers
from avsbench_methods.catr.layers import ROWS, DroppedReLU, ReLUFeedForward
from avsbench_methods.catr.narrow import NarrowAttention

from avsbench_harness.nn import attention
from avsbench_harness.testing.seeded import seeded_input


def draw(name: str, *shape: int) -> torch.Tensor:
    return seeded_input(1, name, shape).double()


def padding(count: int, gone: int) -> torch.Tensor:
    """(2,1,1,count), where the last tokens of the first clip do not exist."""
    mask = torch.ones(2, 1, 1, count, dtype=torch.bool)
    mask[0, ..., count - gone :] = False
    return mask


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


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("asking", "asked"), [(30, 5), (5, 30), (30, 1), (1, 1), (30, 20)])
def test_narrow_attention_is_attention(asking: int, asked: int, masked: bool) -> None:
    narrow = NarrowAttention(64, 8).double()
    for parameter in narrow.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    plain = attention.Attention(64, 8).double()
    plain.load_state_dict(narrow.state_dict())
    tokens = draw("q", 2, asking, 64), draw("k", 2, asked, 64), draw("v", 2, asked, 64)
    mask = padding(asked, asked // 2) if masked else None
    torch.testing.assert_close(narrow(*tokens, mask=mask), plain(*tokens, mask=mask))


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
