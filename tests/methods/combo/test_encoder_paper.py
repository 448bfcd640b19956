"""COMBO's encoder, compared with the paper's equations."""

from __future__ import annotations

import torch
from avsbench_methods.combo.encoder import ChannelWeights


def test_channel_weights_are_equation_3() -> None:
    torch.manual_seed(0)
    module = ChannelWeights([3], "linear")
    maskige, image = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    linear = module[0].linear
    with torch.no_grad():
        (found,) = module([image], [maskige])
        for frame in range(2):
            mean = maskige[frame].flatten(1).mean(dim=1)
            for channel in range(3):
                weight = sum(linear.weight[channel, k] * mean[k] for k in range(3)) + linear.bias[channel]
                expected = image[frame, channel] + weight * maskige[frame, channel]
                torch.testing.assert_close(found[frame, channel], expected)
