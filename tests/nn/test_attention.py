from __future__ import annotations

import pytest
import torch
from torch import nn

from avsbench_harness.nn.attention import Attention, FeedForward


def pair(bias: bool = True) -> tuple[Attention, nn.MultiheadAttention]:
    """Our module and PyTorch's, with the same weights."""
    torch.manual_seed(5)
    theirs = nn.MultiheadAttention(16, 4, bias=bias, batch_first=True).double().eval()
    ours = Attention(16, 4, bias=bias).double().eval()
    state = {name.replace("in_proj_", "in_proj."): value for name, value in theirs.state_dict().items()}
    ours.load_state_dict(state)
    if bias:
        for module in (ours.in_proj, ours.out_proj):
            nn.init.normal_(module.bias)
        theirs.in_proj_bias.data.copy_(ours.in_proj.bias)
        theirs.out_proj.bias.data.copy_(ours.out_proj.bias)
    return ours, theirs


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("keys", [1, 7])
def test_agrees_with_pytorch(bias: bool, keys: int) -> None:
    ours, theirs = pair(bias)
    query, key, value = (torch.randn(2, n, 16).double() for n in (5, keys, keys))
    torch.testing.assert_close(ours(query), theirs(query, query, query)[0])
    torch.testing.assert_close(ours(query, key), theirs(query, key, key)[0])
    torch.testing.assert_close(ours(query, key, value), theirs(query, key, value)[0])


def test_masked_keys_have_no_influence() -> None:
    ours, _ = pair()
    query, key = torch.randn(2, 5, 16).double(), torch.randn(2, 7, 16).double()
    mask = torch.tensor([[True] * 4 + [False] * 3])
    torch.testing.assert_close(ours(query, key, mask=mask), ours(query, key[:, :4]))


def test_dropout_is_applied_in_training_only() -> None:
    torch.manual_seed(0)
    attention = Attention(16, 4, dropout=0.5)
    tokens = torch.randn(1, 6, 16)
    assert not torch.equal(attention(tokens), attention(tokens))
    attention.eval()
    assert torch.equal(attention(tokens), attention(tokens))


def test_heads_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="heads"):
        Attention(10, 4)


def test_feed_forward_is_linear_gelu_linear() -> None:
    torch.manual_seed(0)
    block = FeedForward(4, 8, dropout=0.9).eval()
    tokens = torch.randn(3, 4)
    hidden = tokens @ block.linear1.weight.T + block.linear1.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    torch.testing.assert_close(block(tokens), hidden @ block.linear2.weight.T + block.linear2.bias)
