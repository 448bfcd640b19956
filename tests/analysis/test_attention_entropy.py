"""Entropy of attention weights, compared with closed forms and with PyTorch's weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from avsbench_harness.analysis.attention_entropy import AttentionMonitor, LayerEntropy, layer_entropy
from avsbench_harness.nn.attention import Attention
from avsbench_harness.nn.deformable import MultiScaleDeformableAttention, cell_centres

ALL = torch.ones(1, dtype=torch.bool)


def rows(*values: list[float]) -> Tensor:
    """Weights of one input and one head."""
    return torch.tensor([[list(values)]])


@pytest.mark.parametrize(
    ("weights", "entropy"),
    [
        ([0.25, 0.25, 0.25, 0.25], 1.0),
        ([1.0, 0.0, 0.0, 0.0], 0.0),
        ([0.5, 0.5, 0.0, 0.0], 0.5),  # log 2 / log 4
        ([0.5, 0.25, 0.25, 0.0], 0.75),  # 1.5 log 2 / log 4
    ],
)
def test_entropy_relative_to_the_number_of_keys(weights: list[float], entropy: float) -> None:
    assert layer_entropy(rows(weights), ALL) == LayerEntropy(
        4, pytest.approx(entropy), pytest.approx(entropy)
    )


def test_masked_keys_do_not_count() -> None:
    allowed = torch.tensor([True, True, False, False])
    assert layer_entropy(rows([0.5, 0.5, 0.0, 0.0]), allowed) == LayerEntropy(
        2, pytest.approx(1), pytest.approx(1)
    )


def test_queries_with_a_single_key_have_no_entropy() -> None:
    assert layer_entropy(rows([1.0], [1.0]), ALL) == LayerEntropy(1, None, None)
    allowed = torch.tensor([[True, False], [True, True]])
    mixed = layer_entropy(rows([1.0, 0.0], [0.5, 0.5]), allowed)
    assert mixed == LayerEntropy(1.5, pytest.approx(1), pytest.approx(1))


def test_the_head_with_the_lowest_entropy() -> None:
    weights = torch.tensor([[[[0.5, 0.5]], [[1.0, 0.0]]]])
    assert layer_entropy(weights, ALL) == LayerEntropy(2, pytest.approx(0.5), 0)


def observed(network: nn.Module, *arguments: Tensor, **keywords: Tensor | None) -> dict[str, LayerEntropy]:
    monitor = AttentionMonitor(nn.ModuleDict({"layer": network}))
    with monitor.observe(1):
        network(*arguments, **keywords)
    network(*arguments, **keywords)  # hooks are removed
    return {name: steps[1] for name, steps in monitor.layers.items()}


@pytest.mark.parametrize("masked", [False, True])
def test_attention_layers_agree_with_pytorch(masked: bool) -> None:
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
    ours = Attention(8, 2, dropout=0.5)
    ours.load_state_dict(
        {name.replace("in_proj_", "in_proj."): value for name, value in theirs.state_dict().items()}
    )
    query, key = 5 * torch.randn(3, 4, 8), 5 * torch.randn(3, 6, 8)
    padding = torch.zeros(3, 6, dtype=torch.bool)
    padding[1, 4:] = masked
    theirs.eval()
    weights = theirs(query, key, key, key_padding_mask=padding, average_attn_weights=False)[1].detach()
    theirs.train()
    expected = layer_entropy(weights, ~padding[:, None, None])
    if masked:
        assert expected.keys == pytest.approx((6 + 4 + 6) / 3)
    for found in (
        observed(theirs, query, key, key, key_padding_mask=padding),
        observed(ours, query, key, mask=~padding[:, None, None]),
        observed(
            ours, query, key=key, mask=torch.zeros(3, 1, 1, 6).masked_fill(padding[:, None, None], -torch.inf)
        ),
    ):
        assert found["layer"] == LayerEntropy(
            expected.keys, pytest.approx(expected.entropy), pytest.approx(expected.lowest_head)
        )


def test_attention_whose_weights_are_part_of_the_network_is_observed() -> None:
    layer = Attention(8, heads=2)
    monitor = AttentionMonitor(nn.ModuleDict({"layer": layer}))
    query, key = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    with monitor.observe(1):
        weights = layer.with_weights(query, key)[1]
    layer.with_weights(key, query)
    assert list(monitor.layers["layer"]) == [1]
    assert monitor.layers["layer"][1].keys == 5
    with torch.no_grad():
        layer.in_proj.weight.zero_()  # equal scores
    with monitor.observe(2):
        layer.with_weights(query, key)
    assert monitor.layers["layer"][2].entropy == pytest.approx(1)
    assert weights.shape == (2, 3, 5)


def test_masks_of_pytorchs_attention() -> None:
    theirs = nn.MultiheadAttention(8, 2, batch_first=True)
    tokens = torch.randn(3, 4, 8)
    causal = torch.ones(4, 4, dtype=torch.bool).triu(1)
    assert observed(theirs, tokens, tokens, tokens, attn_mask=causal)["layer"].keys == 2.5
    assert observed(theirs, tokens, tokens, tokens, attn_mask=causal.expand(6, 4, 4))["layer"].keys == 2.5


def test_self_attention() -> None:
    ours = Attention(8, 2)
    nn.init.zeros_(ours.in_proj.weight)
    assert observed(ours, torch.randn(1, 5, 8)) == {
        "layer": LayerEntropy(5, pytest.approx(1), pytest.approx(1))
    }


def test_deformable_attention_has_its_sampling_points_as_keys() -> None:
    layer = MultiScaleDeformableAttention(8, levels=2, heads=2, points=3)
    shapes = [(2, 2), (1, 1)]
    query = torch.randn(1, 5, 8)
    uniform = observed(layer, query, cell_centres(shapes), query, shapes)
    assert uniform == {"layer": LayerEntropy(6, pytest.approx(1), pytest.approx(1))}
    with torch.no_grad():
        layer.attention_weights.bias[:6] = torch.tensor([100.0, 0, 0, 0, 0, 0])
    assert observed(layer, query, cell_centres(shapes), query, shapes)["layer"].lowest_head == pytest.approx(
        0
    )


def test_evaluation_is_not_observed() -> None:
    with torch.no_grad():
        assert observed(Attention(8, 2), torch.randn(1, 5, 8)) == {}


def test_observation_draws_no_random_numbers() -> None:
    layer, tokens = Attention(8, 2, dropout=0.5), torch.randn(1, 5, 8)
    monitor = AttentionMonitor(layer)
    torch.manual_seed(0)
    plain = layer(tokens)
    torch.manual_seed(0)
    with monitor.observe(1):
        assert torch.equal(layer(tokens), plain)
