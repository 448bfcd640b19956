"""Feature encoding and fusion: the visual encoder (section 3.2) and equation 3."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avsbench_harness.nn.positions import sine_positions

from .layers import AttentionBlock, EncoderLayer, FeedForwardBlock
from .options import GROUPS, Options


class VisualEncoder(nn.Module):
    """The transformer encoder on top of the backbone (section 3.2), over each frame's coarsest map.

    Args:
        channels: channels of the backbone's coarsest map.
        options: see :class:`.options.Options`.
    """

    def __init__(self, channels: int, options: Options) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Conv2d(channels, options.dim, 1), nn.GroupNorm(GROUPS, options.dim))
        self.layers = nn.ModuleList(EncoderLayer(options) for _ in range(options.encoder_layers))

    def forward(self, features: Tensor) -> Tensor:
        """Map (F,channels,h,w) to ``f_v`` (F,dim,h,w)."""
        maps = self.project(features)
        positions = pixel_positions(maps)
        tokens = maps.flatten(2).transpose(1, 2)
        for layer in self.layers:
            tokens = layer(tokens, positions)
        encoded: Tensor = tokens.transpose(1, 2).unflatten(2, maps.shape[-2:])
        return encoded


class Fusion(nn.Module):
    """Equation 3: the audio of every frame attends to the pixels of all frames.

    ``h = LN(MCA(F_a, F_v) + F_a)`` and ``F'_a = LN(FFN(h) + h)``.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.cross_attn = AttentionBlock(options)
        self.ffn = FeedForwardBlock(options)

    def forward(self, audio: Tensor, video: Tensor, valid: Tensor) -> Tensor:
        """Fuse the audio and video of clips.

        Args:
            audio: (B,T,dim), ``F_a``.
            video: (B,T,dim,h,w), ``F_v``.
            valid: (B,T) bool; the result of a clip without valid frames is undefined.

        Returns:
            (B,T,dim), ``F'_a``.
        """
        frames, dim, height, width = video.shape[1:]
        times = time_positions(frames, audio)
        pixels = pixel_positions(video[0]).view(1, height * width, dim) + times[:, None]
        memory = video.permute(0, 1, 3, 4, 2).flatten(1, 3)
        attended = self.cross_attn(
            audio,
            memory,
            positions=times,
            memory_positions=pixels.flatten(0, 1),
            allowed=attendable(valid).repeat_interleave(height * width, dim=1),
        )
        fused: Tensor = self.ffn(attended)
        return fused


def attendable(valid: Tensor) -> Tensor:
    """Return ``valid``, but all true in clips without valid frames: a softmax over nothing is NaN."""
    return valid | ~valid.any(dim=1, keepdim=True)


def pixel_positions(maps: Tensor) -> Tensor:
    """Return sine position codes (h*w,dim) of maps (...,dim,h,w)."""
    dim, height, width = maps.shape[-3:]
    code = sine_positions(height, width, dim, normalize=True, device=maps.device, dtype=maps.dtype)
    return code.flatten(0, 1)


def time_positions(frames: int, like: Tensor) -> Tensor:
    """Return sine position codes (frames,dim) of a clip's frames, independent of their number."""
    dim = like.shape[-1]
    # The column half of a two-dimensional code with 2 * dim channels, of a map with a single row.
    code = sine_positions(1, frames, 2 * dim, device=like.device, dtype=like.dtype)
    return torch.as_tensor(code[0, :, dim:])
