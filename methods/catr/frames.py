"""Valid frames of clips, packed and unpacked."""

from __future__ import annotations

from torch import Tensor

from avsbench_harness.nn.frames import restore_frames


class Frames:
    """The N valid frames of B clips, packed clip by clip.

    Attributes:
        valid: (B,T) bool, at least one true per clip.
        complete: whether every frame is valid.
        clip: (N,) the clip of each packed frame.
        first: (B,) the index of each clip's first packed frame.

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
        """Map (B,T,...) to (N,...)."""
        return values.flatten(0, 1) if self.complete else values[self.valid]

    def unpack(self, values: Tensor) -> Tensor:
        """Map (N,...) to (B,T,...), with zeros in padded frames."""
        return restore_frames(values, self.valid)
