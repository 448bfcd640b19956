"""Valid frames of a batch: from (B,T,...) to (N,...) and back."""

from __future__ import annotations

from torch import Tensor


def select_frames(values: Tensor, frames: Tensor) -> Tensor:
    """Return the rows (N,...) of the N marked frames.

    Args:
        values: (B,T,...), or (M,...) with ``frames`` (M,).
        frames: (B,T) or (M,) bool.
    """
    return values.flatten(0, frames.dim() - 1) if frames.all() else values[frames]


def restore_frames(values: Tensor, frames: Tensor) -> Tensor:
    """Put rows (N,...) back at the N marked frames, with zeros in all others.

    Args:
        values: (N,...).
        frames: (B,T) bool, N of them true.

    Returns:
        (B,T,...)
    """
    if len(values) == frames.numel():
        return values.view(*frames.shape, *values.shape[1:])
    restored = values.new_zeros(*frames.shape, *values.shape[1:])
    restored[frames] = values
    return restored
