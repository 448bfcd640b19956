"""AVSegFormer's reformer, compared with the paper's equations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from avsbench_methods.avsegformer.options import Options
from avsbench_methods.avsegformer.reformer import MaskReformer

from avsbench_harness.tasks import MS3


@pytest.mark.parametrize("kind", ["attention_only", "query_mixed"])
def test_mask_reformer_feeds_attention_through_a_pyramid(kind: str) -> None:
    torch.manual_seed(2)
    options = Options.of({"queries": 3, "dim": 32, "mask_reformer": kind}, MS3, "paper")
    reformer = MaskReformer(options, 1).double()
    shapes = [(8, 4), (4, 2), (2, 1)]
    attention, queries = torch.rand(2, 3, 42).double(), torch.randn(2, 3, 32).double()

    pixels = torch.einsum("nqs,nqc->ncs", attention, queries) if kind == "query_mixed" else attention
    maps = pixels[:, :, 40:].reshape(2, -1, 2, 1)
    levels = (pixels[:, :, 32:40].reshape(2, -1, 4, 2), pixels[:, :, :32].reshape(2, -1, 8, 4), 0.0)
    for step, level in zip(reformer.steps, levels, strict=True):
        maps = step(F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)) + level
    expected = reformer.classifier(maps)
    assert expected.shape == (2, 1, 64, 32)
    torch.testing.assert_close(reformer(attention, queries, shapes), expected)
