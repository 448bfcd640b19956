"""Sine position encodings of feature maps."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sine_positions(
    height: int,
    width: int,
    dim: int,
    *,
    temperature: float = 10000.0,
    normalize: bool = False,
    scale: float = 2 * math.pi,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Fixed two-dimensional position encodings, (height, width, dim).

    The first half of the channels encodes the row and the second half the column, both counted from 1.
    Channels ``2i`` and ``2i + 1`` of a half are the sine and cosine of
    ``position / temperature**(2i / half)`` (Vaswani et al. 2017, section 3.5; in two dimensions Carion et al.
    2020, appendix A.4).

    Args:
        height: rows of the map.
        width: columns of the map.
        dim: channels, a multiple of 4.
        temperature: ratio between the longest and the shortest wavelength.
        normalize: divide positions by the last one and multiply them by ``scale``, so that the encoding
            does not depend on the map's size (DETR); otherwise positions are pixel indices.
        scale: the last position if ``normalize``.
        device: device of the result.
        dtype: type of the result; angles are computed in float32 at least.
    """
    if dim % 4:
        raise ValueError(f"sine positions need a multiple of 4 channels, got {dim}")
    working = torch.promote_types(dtype, torch.float32)
    half = dim // 2
    exponents = torch.arange(0, half, 2, device=device, dtype=working) / half
    wavelengths = temperature**exponents

    def axis(length: int) -> Tensor:
        steps = torch.arange(1, length + 1, device=device, dtype=working)
        if normalize:
            steps = steps / (length + 1e-6) * scale
        angles = steps[:, None] / wavelengths
        return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)

    rows = axis(height)[:, None].expand(height, width, half)
    columns = axis(width)[None].expand(height, width, half)
    return torch.cat((rows, columns), dim=-1).to(dtype)
