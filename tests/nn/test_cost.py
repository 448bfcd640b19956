from __future__ import annotations

import torch
from torch import nn

from avsbench_harness.method import from_folder
from avsbench_harness.nn.cost import model_cost
from avsbench_harness.tasks import S4


class Repeated(nn.Module):
    """Takes a learned tensor as its input, as query decoders do."""

    def forward(self, queries: torch.Tensor) -> torch.Tensor:
        return queries @ queries.transpose(0, 1)


def test_the_tiny_method_by_hand(tiny: str) -> None:
    from pathlib import Path

    model = from_folder(Path(tiny)).build(S4, "r50", variant="released", width=4).train()
    model.repeated = Repeated()
    model.queries = nn.Parameter(torch.ones(2, 3))
    real = model.forward

    def forward(batch):
        model.repeated(model.queries.expand(2, 3))
        return real(batch)

    model.forward = forward
    found = model_cost(model, 32)
    # 3x3 convolutions 3 -> 4 at stride 4 and 4 -> 1, the gate's 128 -> 4, two norms of 4, the queries.
    assert found.parameters == (27 * 4 + 4) + 8 + (128 * 4 + 4) + (36 + 1) + 6
    macs = 5 * (8 * 8 * (27 * 4 + 36) + 128 * 4) + 2 * 2 * 3
    assert abs(found.gmacs * 1e9 - macs) < 1
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
