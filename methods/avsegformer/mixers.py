"""How the sound changes the mask feature (paper section 3.4, figure 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsbench_harness.nn.attention import Attention

from .options import Options


class ChannelAttentionMixer(nn.Module):
    """Lets the sound choose channels of the mask feature (CHA, paper equation 2).

    The sound token attends to all pixels, with several heads; what it reads becomes one weight per channel.
    """

    def __init__(self, dim: int, *, sigmoid: bool, residual: bool, heads: int = 8) -> None:
        """
        Args:
            dim: channels.
            sigmoid: squash the weights into (0, 1) (published code).
            residual: add the weighted feature to the feature (equation 2), instead of replacing it.
            heads: of the attention.
        """
        super().__init__()
        self.heads = heads
        self.sigmoid = sigmoid
        self.residual = residual
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.kv_proj = nn.Linear(dim, 2 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def weights(self, pixels: Tensor, audio: Tensor) -> Tensor:
        """Channel weights (N,dim) from pixels (N,P,dim) and sound tokens (N,dim)."""
        dim = audio.shape[1]
        keys, values = self.kv_proj.weight.view(
            2, self.heads, dim // self.heads, dim
        )  # each (heads, dim/heads, dim)
        queries = self.q_proj(audio).view(-1, self.heads, dim // self.heads)
        # There is one query per head and there are thousands of pixels: projecting the query onto the pixels'
        # channels, and the attended mean pixel onto the values, gives what projecting every pixel would.
        queries = torch.einsum("nhd,hdc->nhc", queries, keys)
        means = F.scaled_dot_product_attention(queries, pixels, pixels, scale=keys.shape[1] ** -0.5)
        weights: Tensor = self.proj(torch.einsum("nhc,hdc->nhd", means, values).flatten(1))
        return weights.sigmoid() if self.sigmoid else weights

    def forward(self, pixels: Tensor, audio: Tensor) -> Tensor:
        """Pixels (N,P,dim) with their channels weighted by the sound (N,dim)."""
        weights = self.weights(pixels, audio)
        return pixels * (weights + 1 if self.residual else weights)[:, None]


class CrossAttentionMixer(nn.Module):
    """Pixels attend to the sound and add what they read (CRA).

    A frame has one sound token, so that the softmax over it is 1 and all pixels add the same vector.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention = Attention(dim)

    def forward(self, pixels: Tensor, audio: Tensor) -> Tensor:
        """Pixels (N,P,dim) and the sound (N,dim) -> (N,P,dim)."""
        return pixels + self.attention(pixels, audio[:, None])


class NoMixer(nn.Module):
    """Leaves the mask feature as it is."""

    def forward(self, pixels: Tensor, audio: Tensor) -> Tensor:
        """The pixels (N,P,dim)."""
        return pixels


def mixer(options: Options) -> nn.Module:
    """The mixer that the options ask for."""
    if options.mixer == "none":
        return NoMixer()
    if options.mixer == "cross_attention":
        return CrossAttentionMixer(options.dim)
    return ChannelAttentionMixer(options.dim, sigmoid=options.mixer_sigmoid, residual=options.mixer_residual)
