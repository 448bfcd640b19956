"""CATR as released: gate."""

from __future__ import annotations

import pytest
import torch
from avsbench_methods.catr.gate import FrameGate
from avsbench_methods.catr.options import Options

from avsbench_harness.testing.seeded import seeded_input

from .helpers import SMALL, same


@pytest.mark.parametrize("pairs", ["first_pair", "own_pair"])
def test_gates_by_hand(pairs: str) -> None:
    torch.manual_seed(1)
    gate = FrameGate(Options(**SMALL, encoder_layers=4, later_gates=pairs)).eval()
    maps = list(seeded_input(1, "maps", (4, 2, 64, 4, 4)))
    pooled = [
        gate.conv(torch.cat((maps[index], maps[index + 1]), dim=1)).sigmoid().mean(dim=(2, 3))
        for index in range(3)
    ]
    if pairs == "first_pair":
        weights = [pooled[0][:, 0], pooled[0].sigmoid().mean(dim=1), pooled[0].sigmoid().mean(dim=1)]
    else:
        weights = [pooled[index][:, index] for index in range(3)]
    same(gate.gates(maps)[..., 0], torch.stack(weights, dim=1))
    weighted = [weight[:, None, None, None] * each for weight, each in zip(weights, maps[1:], strict=True)]
    total = gate.merge[0](weighted[0])
    total = gate.merge[1](total + weighted[1])
    same(gate(maps), gate.merge[2](total + weighted[2]))
