from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from avsbench_harness.nn.attention import Attention, _DroppedAttention
from avsbench_harness.nn.dropout import Dropout, draw_kept


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_values_are_dropped_at_the_rate_and_the_mean_is_kept(rate: float) -> None:
    torch.manual_seed(0)
    dropped = Dropout(rate)(torch.ones(1000, 201))
    assert float((dropped == 0).float().mean()) == pytest.approx(rate, abs=0.004)
    assert float(dropped.max()) == pytest.approx(1 / (1 - rate), rel=2e-4)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.02)
    # Neighbours that share a random number are independent.
    pairs = (dropped != 0).float().view(-1)[:200_000].view(-1, 4)
    assert torch.corrcoef(pairs.T).sub(torch.eye(4)).abs().max() < 0.02


def test_any_number_of_values_including_none() -> None:
    for count in (0, 1, 3, 4, 5, 17):
        kept, _ = draw_kept((count, 1), 0.5)
        assert kept.shape == (count, 1)
        assert kept.dtype == torch.bool


def test_masks_depend_on_the_generator_alone() -> None:
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(Dropout(0.5)(torch.ones(100)))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_gradient_is_the_mask_and_evaluation_is_the_identity() -> None:
    values = torch.ones(50, requires_grad=True)
    layer = Dropout(0.4)
    assert isinstance(layer, nn.Dropout)
    dropped = layer(values)
    dropped.sum().backward()
    assert torch.equal(values.grad, dropped.detach())
    assert torch.equal(layer.eval()(values), values)


@pytest.mark.parametrize("rate", [0.3, 1e-6])
def test_dropped_attention_and_its_gradients(rate: float) -> None:
    torch.manual_seed(3)
    parts = [torch.randn(2, 3, n, 4, dtype=torch.float64, requires_grad=True) for n in (5, 7, 7)]
    torch.manual_seed(11)
    found = _DroppedAttention.apply(*parts, rate)
    torch.manual_seed(11)
    masks = []
    for _ in range(2):
        kept, factor = draw_kept((3, 5, 7), rate)
        masks.append(kept.double() * factor)
    query, key, value = parts
    weights = (query @ key.transpose(2, 3) / 2).softmax(-1) * torch.stack(masks)
    expected = weights @ value
    torch.testing.assert_close(found, expected)
    if rate < 0.01:  # rounded to 0
        torch.testing.assert_close(found, F.scaled_dot_product_attention(*parts))
    slope = torch.randn(found.shape, dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad(found, parts, slope), torch.autograd.grad(expected, parts, slope)
    )


def test_attention_drops_weights_in_training_only(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    attention = Attention(16, 4, dropout=0.25)
    query, key = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    rates: list[float] = []
    apply = _DroppedAttention.apply
    monkeypatch.setattr(_DroppedAttention, "apply", lambda *a: rates.append(a[3]) or apply(*a))
    assert attention(query, key).shape == (2, 5, 16)
    attention.eval()(query, key)
    assert rates == [0.25]


def test_weights_are_the_mean_over_heads() -> None:
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(16, 4, batch_first=True).double().eval()
    ours = Attention(16, 4).double().eval()
    ours.load_state_dict(
        {name.replace("in_proj_", "in_proj."): value for name, value in theirs.state_dict().items()}
    )
    query, key = torch.randn(2, 5, 16).double(), torch.randn(2, 7, 16).double()
    torch.testing.assert_close(ours.with_weights(query, key), theirs(query, key, key))


def test_returned_weights_include_the_dropout_that_the_values_get() -> None:
    torch.manual_seed(0)
    attention = Attention(16, 1, dropout=0.25).double().train()
    query, key = torch.randn(2, 50, 16).double(), torch.randn(2, 70, 16).double()
    attended, weights = attention.with_weights(query, key)
    assert float((weights == 0).double().mean()) == pytest.approx(0.25, abs=0.03)
    values = torch.nn.functional.linear(key, attention.in_proj.weight[32:], attention.in_proj.bias[32:])
    torch.testing.assert_close(attended, attention.out_proj(weights @ values))
