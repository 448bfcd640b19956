"""From tokens and queries to a mask: mask feature, mask head and classifiers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsbench_harness.nn.resampling import upsampled_conv2d

from .options import GROUPS, Options

#: Stride of the mask feature, pixels.
STRIDE = 4


def projection(channels: int, dim: int, kernel: int = 1) -> nn.Sequential:
    """Return a convolution that keeps the map's size, and group normalisation."""
    return nn.Sequential(nn.Conv2d(channels, dim, kernel, padding=kernel // 2), nn.GroupNorm(GROUPS, dim))


class MaskFeature(nn.Module):
    """The mask feature at stride 4 (paper section 3.3)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lateral = projection(dim, dim)
        self.output = projection(dim, dim, kernel=3)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Fuse the stride-4 map (N,dim,h,w) and the encoder's stride-8 map (N,dim,h/2,w/2) to (N,dim,h,w)."""
        upsampled = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        return F.relu(self.output(self.lateral(fine) + upsampled), inplace=True)


class ConvolutionClassifier(nn.Module):
    """Convolutions and upsampling from stride-4 maps to logits of the image's size (published code)."""

    def __init__(self, channels: int, width: int, classes: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, width, 3, padding=1)
        self.refine = nn.Conv2d(width, width // 4, 3, padding=1)
        self.classify = nn.Conv2d(width // 4, classes, 1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (N,channels,h,w) to (N,classes,4h,4w)."""
        maps = upsampled_conv2d(self.reduce(maps), self.refine.weight, self.refine.bias, scale=STRIDE)
        logits: Tensor = self.classify(F.relu(maps, inplace=True))
        return logits


class LinearClassifier(nn.Module):
    """One linear layer per stride-4 pixel (paper equation 3), resized to the image."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.classify = nn.Conv2d(channels, classes, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (N,channels,h,w) to (N,classes,4h,4w)."""
        return F.interpolate(self.classify(maps), scale_factor=STRIDE, mode="bilinear", align_corners=False)


def classifier(options: Options, channels: int, classes: int) -> nn.Module:
    """Return the classifier that the options select, for maps with this number of channels."""
    if options.classifier == "linear":
        return LinearClassifier(channels, classes)
    return ConvolutionClassifier(channels, options.mask_channels, classes)


class MaskHead(nn.Module):
    """An MLP over the products of every pixel with every query, and a classifier (paper equation 3)."""

    def __init__(self, options: Options, classes: int) -> None:
        super().__init__()
        dim, hidden = options.dim, options.mask_mlp_dim
        self.mlp_in = nn.Linear(options.queries, hidden)
        self.mlp_hidden = nn.Linear(hidden, hidden)
        self.mlp_out = nn.Linear(hidden, dim)
        self.classifier = classifier(options, dim, classes)

    def forward(self, queries: Tensor, pixels: Tensor, shape: tuple[int, int]) -> Tensor:
        """Return logits (N,K,4h,4w) for queries (N,Q,dim) and pixels (N,h*w,dim), with ``shape`` (h,w)."""
        # One frame at a time: the hidden layers are eight times as wide as a pixel.
        pixels = torch.stack([self._update(*frame) for frame in zip(queries, pixels, strict=True)])
        logits: Tensor = self.classifier(pixels.transpose(1, 2).unflatten(2, shape))
        return logits

    def _update(self, queries: Tensor, pixels: Tensor) -> Tensor:
        """Add the MLP's output for one frame's queries (Q,dim) and pixels (P,dim) to the pixels."""
        # The products are linear in the pixels, so the MLP's first layer is folded into the queries.
        folded = self.mlp_in.weight @ queries  # (hidden,dim)
        hidden = F.relu(torch.addmm(self.mlp_in.bias, pixels, folded.T), inplace=True)
        hidden = F.relu(self.mlp_hidden(hidden), inplace=True)
        update: Tensor = self.mlp_out(hidden)
        return pixels + update
