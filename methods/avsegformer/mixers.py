"""Audio-visual mixers: modulation of the mask feature by the audio (paper section 3.4, figure 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsbench_harness.nn.attention import Attention

from .options import Options


class ChannelAttentionMixer(nn.Module):
    """Weights the channels of the mask feature by the audio (CHA, paper equation 2).

    The audio token attends to all pixels, with several heads; the output is one weight per channel.
    """

    def __init__(self, dim: int, *, sigmoid: bool, residual: bool, heads: int = 8) -> None:
        """
        Args:
            dim: channels.
            sigmoid: apply a sigmoid to the weights (published code).
            residual: add the weighted feature to the unweighted one (equation 2).
            heads: number of attention heads.
        """
        super().__init__()
        self.heads = heads
        self.sigmoid = sigmoid
        self.residual = residual
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.kv_proj = nn.Linear(dim, 2 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def weights(self, pixels: Tensor, audio: Tensor) -> Tensor:
        """Return channel weights (N,dim) for pixels (N,P,dim) and audio tokens (N,dim)."""
        dim = audio.shape[1]
        keys, values = self.kv_proj.weight.view(
            2, self.heads, dim // self.heads, dim
        )  # each (heads, dim/heads, dim)
        queries = self.q_proj(audio).view(-1, self.heads, dim // self.heads)
        # One query per head and thousands of pixels: projecting the query onto the pixels' channels, and the
        # attended mean pixel onto the values, is equivalent to projecting every pixel, and cheaper.
        queries = torch.einsum("nhd,hdc->nhc", queries, keys)
        means = F.scaled_dot_product_attention(queries, pixels, pixels, scale=keys.shape[1] ** -0.5)
        weights: Tensor = self.proj(torch.einsum("nhc,hdc->nhd", means, values).flatten(1))
        return weights.sigmoid() if self.sigmoid else weights

    def forward(self, pixels: Tensor, audio: Tensor) -> Tensor:
        """Weight the channels of the pixels (N,P,dim) by the audio (N,dim)."""
        weights = self.weights(pixels, audio)
        return pixels * (weights + 1 if self.residual else weights)[:, None]


class CrossAttentionMixer(nn.Module):
    """Cross-attention from pixels to the audio, with a residual connection (CRA).

    A frame has one audio token, so the softmax over it is 1 and the same vector is added to all pixels.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention = Attention(dim)

    def forward(self, pixels: Tensor, audio: Tensor) -> Tensor:
        """Map pixels (N,P,dim) and audio (N,dim) to (N,P,dim)."""
        return pixels + self.attention(pixels, audio[:, None])


class NoMixer(nn.Module):
    """Returns the mask feature unchanged."""

    def forward(self, pixels: Tensor, audio: Tensor) -> Tensor:
        """Return the pixels (N,P,dim)."""
        return pixels


def mixer(options: Options) -> nn.Module:
    """Return the mixer that the options select."""
    if options.mixer == "none":
        return NoMixer()
    if options.mixer == "cross_attention":
        return CrossAttentionMixer(options.dim)
    return ChannelAttentionMixer(options.dim, sigmoid=options.mixer_sigmoid, residual=options.mixer_residual)
