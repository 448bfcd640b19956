"""Padding of clips to the shape of a batch, and its inverse on predictions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def content_size(width: int, height: int, size: int) -> tuple[int, int]:
    """Return (width, height) of a picture whose longer side is resized to ``size``, its aspect kept."""
    longer = max(width, height)
    return max(1, round(width * size / longer)), max(1, round(height * size / longer))


def pad_to_square(values: Tensor, size: int, fill: int) -> Tensor:
    """Pad (...,h,w) to (...,size,size) at the right and at the bottom with the value ``fill``."""
    height, width = values.shape[-2:]
    if (height, width) == (size, size):
        return values.contiguous()
    return functional.pad(values, (0, size - width, 0, size - height), value=fill)


def remove_padding(prediction: Tensor, content: tuple[int, int], size: int) -> Tensor:
    """Crop a prediction to the part that covers the frame: the inverse of :func:`pad_to_square`.

    Args:
        prediction: (...,H,W) of a network whose input was a square of ``size`` pixels; its own resolution may
            be lower.
        content: (width, height) of the frame at the upper left of that input, pixels.
        size: side of the input, pixels.

    Returns:
        (...,h,w), the same fraction of the prediction.
    """
    width, height = (
        max(1, round(side * extent / size))
        for side, extent in zip(content, (prediction.shape[-1], prediction.shape[-2]), strict=True)
    )
    return prediction[..., :height, :width]


def pad_frames(values: Tensor, frames: int) -> Tensor:
    """Pad (t,...) to (frames,...) with zeros; frames beyond that number are cut off."""
    missing = frames - len(values)
    if missing <= 0:
        return values[:frames]
    return torch.cat([values, values.new_zeros((missing, *values.shape[1:]))])
