"""CATR's faster narrow, compared with plain formulas."""

from __future__ import annotations

import pytest
import torch
from avsbench_methods.catr.narrow import NarrowAttention

from avsbench_harness.nn import attention

from .helpers_fast import draw


def padding(count: int, gone: int) -> torch.Tensor:
    """(2,1,1,count), where the last tokens of the first clip are padding."""
    mask = torch.ones(2, 1, 1, count, dtype=torch.bool)
    mask[0, ..., count - gone :] = False
    return mask


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
