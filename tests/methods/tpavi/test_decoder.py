"""TPAVI as released: decoder."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from avsbench_methods.tpavi.decoder import FusionBlock
from torch import Tensor, nn


@pytest.mark.parametrize("inplace", [True, False])
def test_fusion_adds_the_result_of_the_published_relu(inplace: bool) -> None:
    torch.manual_seed(0)
    block = FusionBlock(8, inplace, coarsest=False).double()
    level, coarse = torch.randn(2, 2, 8, 4, 4, dtype=torch.float64)

    def unit(module: nn.Module, maps: Tensor) -> Tensor:
        relu = nn.ReLU(inplace=inplace)
        return module.conv2(relu(module.conv1(relu(maps)))) + maps

    with torch.no_grad():
        found = block(level, coarse)
        merged = unit(block.unit, coarse + unit(block.level_unit, level.clone()))
    expected = F.interpolate(merged, scale_factor=2, mode="bilinear", align_corners=True)
    torch.testing.assert_close(found, expected)
