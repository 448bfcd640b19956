"""CATR's gate, compared with the paper's equations."""

from __future__ import annotations

import pytest
import torch
from avsbench_methods.catr.gate import ChannelGate
from torch import nn

from avsbench_harness.testing.seeded import seeded_input

from .helpers_paper import options, same


@pytest.mark.parametrize("channels", [None, 2, 16])
@torch.no_grad()
def test_gate_by_equation_6(channels: int | None) -> None:
    torch.manual_seed(2)
    gate = ChannelGate(options(gate_channels=channels)).eval()
    maps = list(seeded_input(1, "maps", (3, 2, 64, 5, 4)))
    total = maps[0]
    for pair in range(2):
        conv = gate.convs[pair]
        assert isinstance(conv, nn.Conv2d)
        assert conv.out_channels == (channels or 64)
        opened = conv(torch.cat((maps[pair], maps[pair + 1]), dim=1)).sigmoid()
        weighted = maps[pair + 1].clone()
        for channel in range(64):
            weight = opened[:, channel * conv.out_channels // 64].flatten(1).mean(dim=1)
            weighted[:, channel] *= weight[:, None, None]
        total = gate.merge[pair](total + weighted)
    same(gate(maps), total)
