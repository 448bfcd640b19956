"""Dropout whose masks are cheap to draw on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Bits by which one value is kept or dropped.
_BITS = 16
_LEVELS = 1 << _BITS


def draw_kept(shape: Sequence[int], rate: float) -> tuple[Tensor, float]:
    """Which values stay, (``shape``) bool on the CPU, and the factor that keeps their expectation.

    Four values are decided by one 64-bit number of torch's generator, which is several times faster than
    drawing each by itself. The rate is rounded to 1/65536, and the factor belongs to the rounded one.

    Args:
        shape: of the mask.
        rate: probability in [0, 1) with which a value is dropped.
    """
    count = 1
    for length in shape:
        count *= length
    dropped = min(round(rate * _LEVELS), _LEVELS - 1)
    words = torch.empty(-(-count * _BITS // 64), dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.int16)[:count] >= dropped - _LEVELS // 2
    return kept.view(*shape), _LEVELS / (_LEVELS - dropped)


class Dropout(nn.Dropout):
    """``torch.nn.Dropout``, with masks from :func:`draw_kept` on the CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """Values of any shape -> the same, some of them zero in training."""
        if not self.training or not self.p or self.inplace or input.device.type != "cpu" or self.p == 1:
            return F.dropout(input, self.p, self.training, self.inplace)
        kept, factor = draw_kept(input.shape, self.p)
        return input * kept.to(input.dtype).mul_(factor)
