"""Frames of clips, in a row and in their places."""

from __future__ import annotations

from torch import Tensor


class Frames:
    """The frames that exist: ``N`` of them in a row, clip by clip, out of (B,T) places.

    Attributes:
        valid: (B,T) bool, at least one true per clip.
        complete: whether every frame exists.
        clip: (N,) the clip of each frame in the row.
        first: (B,) where in the row each clip begins.

    Args:
        valid: see above.
    """

    def __init__(self, valid: Tensor) -> None:
        self.valid = valid
        self.complete = bool(valid.all())
        self.clip = valid.nonzero()[:, 0]
        counts = valid.sum(dim=1)
        self.first = counts.cumsum(dim=0) - counts

    def pack(self, values: Tensor) -> Tensor:
        """(B,T,...) -> (N,...)."""
        return values.flatten(0, 1) if self.complete else values[self.valid]

    def unpack(self, values: Tensor) -> Tensor:
        """(N,...) -> (B,T,...), zeros where there is no frame."""
        if self.complete:
            return values.unflatten(0, self.valid.shape)
        return restore(values, self.valid)


def restore(values: Tensor, valid: Tensor) -> Tensor:
    """Values (N,...) of the true places of ``valid`` (B,T) -> (B,T,...), zeros elsewhere."""
    places = values.new_zeros(*valid.shape, *values.shape[1:])
    places[valid] = values
    return places
