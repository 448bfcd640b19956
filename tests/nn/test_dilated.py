from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from avsbench_harness.nn.dilated import DilatedSum


@pytest.mark.parametrize("size", [(2, 2), (5, 4), (13, 7), (30, 20)])
def test_output_is_the_sum_of_the_convolutions_at_every_size(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    module = DilatedSum(3, 4)
    maps = torch.randn(2, 3, *size)
    assert_close(module(maps), sum(conv(maps) for conv in module.convs), rtol=1e-4, atol=1e-5)


def test_gradients_reach_taps_inside_of_the_map() -> None:
    module = DilatedSum(1, 1, dilations=(1, 4))
    module(torch.ones(1, 1, 3, 3)).sum().backward()
    near, far = module.convs
    assert (near.weight.grad != 0).all()
    assert far.weight.grad is not None
    assert far.weight.grad.count_nonzero() == 1


def test_gradients_of_the_biases_have_memory_of_their_own() -> None:
    """Dilations that exceed the map share one convolution; a second backward pass adds to each bias once."""
    layer = DilatedSum(4, 8)
    for _ in range(2):
        layer(torch.ones(1, 4, 5, 5)).sum().backward()
    gradients = [conv.bias.grad for conv in layer.convs]
    assert len({gradient.data_ptr() for gradient in gradients}) == 4
    for gradient in gradients:
        torch.testing.assert_close(gradient, torch.full((8,), 2 * 25.0))
