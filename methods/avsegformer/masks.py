"""From tokens and queries to a mask: mask feature, audio-visual mixer and mask head."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsbench_harness.nn.resampling import upsampled_conv2d

from .options import GROUPS, Options


def projection(channels: int, dim: int, kernel: int = 1) -> nn.Sequential:
    """A convolution that keeps the map's size, and group normalisation."""
    return nn.Sequential(nn.Conv2d(channels, dim, kernel, padding=kernel // 2), nn.GroupNorm(GROUPS, dim))


class MaskFeature(nn.Module):
    """The stride-4 map that masks are read from (paper section 3.3)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lateral = projection(dim, dim)
        self.output = projection(dim, dim, kernel=3)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """The stride-4 map (N,dim,h,w) and the encoder's stride-8 map (N,dim,h/2,w/2) -> (N,dim,h,w)."""
        upsampled = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        return F.relu(self.output(self.lateral(fine) + upsampled))


class Mixer(nn.Module):
    """Lets the sound choose channels of the mask feature (paper section 3.4, as released).

    The sound token attends to all pixels; what it reads becomes one gate in (0, 1) per channel. The paper
    adds the gated feature to the ungated one, the published code keeps the gated one only.
    """

    def __init__(self, dim: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.kv_proj = nn.Linear(dim, 2 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def gate(self, pixels: Tensor, audio: Tensor) -> Tensor:
        """Gates (N,dim) from pixels (N,P,dim) and sound tokens (N,dim)."""
        dim = audio.shape[1]
        keys, values = self.kv_proj.weight.view(
            2, self.heads, dim // self.heads, dim
        )  # each (heads, dim/heads, dim)
        queries = self.q_proj(audio).view(-1, self.heads, dim // self.heads)
        # There is one query per head and there are thousands of pixels: projecting the query onto the pixels'
        # channels, and the attended mean pixel onto the values, gives what projecting every pixel would.
        queries = torch.einsum("nhd,hdc->nhc", queries, keys)
        means = F.scaled_dot_product_attention(queries, pixels, pixels, scale=keys.shape[1] ** -0.5)
        read = torch.einsum("nhc,hdc->nhd", means, values).flatten(1)
        return torch.sigmoid(self.proj(read))

    def forward(self, pixels: Tensor, audio: Tensor) -> Tensor:
        """Pixels (N,P,dim) with their channels weighted by the sound (N,dim)."""
        return pixels * self.gate(pixels, audio)[:, None]


class MaskHead(nn.Module):
    """Compares every pixel with every query and turns the answers into logits (paper equation 3)."""

    def __init__(self, options: Options, channels: int) -> None:
        super().__init__()
        dim, hidden, width = options.dim, options.mask_mlp_dim, options.mask_channels
        self.mlp_in = nn.Linear(options.queries, hidden)
        self.mlp_hidden = nn.Linear(hidden, hidden)
        self.mlp_out = nn.Linear(hidden, dim)
        self.reduce = nn.Conv2d(dim, width, 3, padding=1)
        self.refine = nn.Conv2d(width, width // 4, 3, padding=1)
        self.classify = nn.Conv2d(width // 4, channels, 1, bias=False)

    def forward(self, queries: Tensor, pixels: Tensor, shape: tuple[int, int]) -> Tensor:
        """Logits (N,K,4h,4w) from queries (N,Q,dim) and pixels (N,h*w,dim) of a map of ``shape`` (h,w)."""
        # One frame at a time: the hidden layers are eight times as wide as a pixel.
        pixels = torch.stack([self._answer(*frame) for frame in zip(queries, pixels, strict=True)])
        maps = self.reduce(pixels.transpose(1, 2).view(-1, pixels.shape[2], *shape))
        maps = F.relu(upsampled_conv2d(maps, self.refine.weight, self.refine.bias, scale=4))
        logits: Tensor = self.classify(maps)
        return logits

    def _answer(self, queries: Tensor, pixels: Tensor) -> Tensor:
        """What the queries (Q,dim) of one frame make of its pixels (P,dim), added to them."""
        # The dot products are linear in the pixel, so the MLP's first layer folds into the queries.
        folded = self.mlp_in.weight @ queries  # (hidden,dim)
        hidden = F.relu(torch.addmm(self.mlp_in.bias, pixels, folded.T), inplace=True)
        hidden = F.relu(self.mlp_hidden(hidden), inplace=True)
        answer: Tensor = self.mlp_out(hidden)
        return pixels + answer
