from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from avsbench_harness.nn.resampling import upsampled_conv2d


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("size", [(5, 7), (1, 3), (8, 8)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_equals_upsampling_then_convolving(
    scale: int, size: tuple[int, int], with_bias: bool, align_corners: bool
) -> None:
    torch.manual_seed(scale)
    maps = torch.randn(2, 6, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 6, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64) if with_bias else None
    found = upsampled_conv2d(maps, weight, bias, scale, align_corners)
    upsampled = F.interpolate(maps, scale_factor=scale, mode="bilinear", align_corners=align_corners)
    expected = F.conv2d(upsampled, weight, bias, padding=1)
    torch.testing.assert_close(found, expected)
    for result in (found, expected):
        result.square().sum().backward(retain_graph=True)
    halves = torch.autograd.grad(expected.square().sum(), (maps, weight))
    torch.testing.assert_close((maps.grad, weight.grad), tuple(2 * half for half in halves))


def test_other_kernel_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="3x3"):
        upsampled_conv2d(torch.zeros(1, 2, 4, 4), torch.zeros(2, 2, 5, 5), None, 2)
