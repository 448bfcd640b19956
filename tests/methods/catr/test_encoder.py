"""CATR as released: encoder."""

from __future__ import annotations

import pytest
import torch
from avsbench_methods.catr.encoder import Fusion
from avsbench_methods.catr.options import Options

from avsbench_harness.testing.seeded import seeded_input

from .helpers import SMALL, same


@pytest.mark.parametrize("power", [1, 2])
def test_fusion_multiplies_tokens_by_the_attention_output(power: int) -> None:
    fusion = Fusion(Options(**SMALL, fusion_power=power))
    torch.nn.init.normal_(fusion.attention.out_proj.bias)
    tokens, context = seeded_input(1, "tokens", (2, 5, 64)), seeded_input(1, "context", (2, 3, 64))
    read = fusion.attention(tokens, context, context)
    same(fusion(tokens, context, context, None), tokens * read**power)
