"""Intermediate masks from the decoder's cross-attention (paper section 3.6, figure 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from avsbench_harness.nn.resampling import upsampled_conv2d

from .masks import ConvolutionClassifier
from .options import Options


class MaskReformer(nn.Module):
    """Maps the attention map of a decoder layer to a mask, with weights shared by all layers.

    Attention-only (AR): the attention of each query is a channel. Query-mixed (QR): a pixel's feature is the
    sum of the queries, weighted with their attention to it. A small feature pyramid and a convolutional
    classifier follow (first public code).
    """

    def __init__(self, options: Options, classes: int) -> None:
        super().__init__()
        self.mix = options.mask_reformer == "query_mixed"
        channels = options.dim if self.mix else options.queries
        # From the coarsest level to stride 4: three steps of upsampling and convolution.
        self.steps = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3))
        self.classifier = ConvolutionClassifier(channels, options.mask_channels, classes)

    def forward(self, attention: Tensor, queries: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
        """Return a layer's mask logits (N,K,H,W).

        Args:
            attention: (N,Q,S), to the tokens of all levels, the mean over heads.
            queries: (N,Q,dim), the output of the layer.
            shapes: of the levels, at strides 8, 16 and 32; their areas sum to S.
        """
        pixels = queries.transpose(1, 2) @ attention if self.mix else attention  # (N,channels,S)
        fine, middle, coarse = (
            level.unflatten(2, shape)
            for level, shape in zip(pixels.split([h * w for h, w in shapes], dim=2), shapes, strict=True)
        )
        maps = _double(self.steps[0], coarse) + middle
        maps = _double(self.steps[1], maps) + fine
        logits: Tensor = self.classifier(_double(self.steps[2], maps))
        return logits


def _double(convolution: nn.Module, maps: Tensor) -> Tensor:
    """Upsample (N,C,h,w) to (N,C,2h,2w) and apply the convolution."""
    weight, bias = convolution.weight, convolution.bias
    assert isinstance(weight, torch.Tensor)
    assert isinstance(bias, torch.Tensor)
    return upsampled_conv2d(maps, weight, bias, scale=2)
