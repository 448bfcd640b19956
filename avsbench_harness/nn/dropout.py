"""Dropout with masks that are fast to draw on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Random bits per value.
_BITS = 16
_LEVELS = 1 << _BITS


def draw_kept(shape: Sequence[int], rate: float) -> tuple[Tensor, float]:
    """Draw a mask of kept values, bool on the CPU, and return it with the factor that keeps the expectation.

    One 64-bit number of torch's generator decides four values, which is several times faster than one draw
    per value. The rate is rounded to 1/65536, and the factor is that of the rounded rate.

    Args:
        shape: shape of the mask.
        rate: probability in [0, 1) with which a value is dropped.
    """
    count = 1
    for length in shape:
        count *= length
    dropped = min(round(rate * _LEVELS), _LEVELS - 1)
    words = torch.empty(-(-count * _BITS // 64), dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.int16)[:count] >= dropped - _LEVELS // 2
    return kept.view(*shape), _LEVELS / (_LEVELS - dropped)


def dropout(input: Tensor, rate: float, training: bool) -> Tensor:
    """``torch.nn.functional.dropout``, with masks from :func:`draw_kept` on the CPU."""
    if not training or not rate or input.device.type != "cpu" or rate == 1:
        return F.dropout(input, rate, training)
    kept, factor = draw_kept(input.shape, rate)
    return input * kept.to(input.dtype).mul_(factor)


class Dropout(nn.Dropout):
    """``torch.nn.Dropout``, with masks from :func:`draw_kept` on the CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the input, in training with some values set to zero and the others scaled."""
        if self.inplace:
            return F.dropout(input, self.p, self.training, inplace=True)
        return dropout(input, self.p, self.training)
