"""Random draws and tables that are bitwise equal on every machine.

Three things may differ between machines: NumPy's distributions (their streams may change with its version),
the last bit of ``sin``, ``exp`` or ``pow`` (it depends on the C library and on the processor's vector unit),
and sums of floats (their order depends on the vector width). Therefore random numbers come from
``random_raw`` of a Philox generator, whose stream is defined by its paper; sines and decibels come from
tables of coarsely rounded integers, which do not depend on the last bit; everything else uses integers, or
elementwise + - x / and square roots of float64, whose results are defined by IEEE 754.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Unit of angles: 4096ths of a turn.
TURN = 4096
#: ``SIN[a]`` = 32767 sin(2 pi a / TURN), rounded.
SIN: Ints = np.array([round(32767 * math.sin(2 * math.pi * a / TURN)) for a in range(TURN)], dtype=np.int64)
#: ``COS[a]`` = 32767 cos(2 pi a / TURN), rounded.
COS: Ints = np.roll(SIN, -TURN // 4)
#: ``ATTENUATION[d]`` is the amplitude of -d dB in steps of 1/4096.
ATTENUATION: Floats = np.array([round(4096 * 10 ** (-d / 20)) for d in range(61)], dtype=np.float64) / 4096


class Draws:
    """The random stream of one named part of one clip.

    Args:
        seed: the benchmark's seed, 0 .. 2**64 - 1.
        name: name of the part, such as ``s4/train/picture``; streams of different names are independent.
        index: index of the clip; a longer benchmark starts with the clips of a shorter one.
    """

    def __init__(self, seed: int, name: str, index: int = 0) -> None:
        key = [seed, zlib.crc32(name.encode()) << 32 | index]
        self._bits = np.random.Philox(key=np.array(key, dtype=np.uint64))

    def integer(self, low: int, high: int) -> int:
        """Draw uniformly from ``low .. high``, both included (the multiplication's bias is below 2**-40)."""
        raw = int(self._bits.random_raw()) >> 11
        return low + (raw * (high - low + 1) >> 53)

    def chance(self, numerator: int, denominator: int) -> bool:
        """Return ``True`` with probability ``numerator / denominator``."""
        return self.integer(1, denominator) <= numerator

    def sample(self, count: int, total: int) -> list[int]:
        """Draw ``count`` different numbers of ``0 .. total - 1`` in random order (Fisher-Yates)."""
        pool = list(range(total))
        for i in range(count):
            j = self.integer(i, total - 1)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:count]

    def noise(self, count: int) -> Ints:
        """Draw (count,) bell-shaped integers of mean 0 and standard deviation 37,837: sums of 16-bit ones."""
        raw = self._bits.random_raw(count).astype("<u8").view("<i2").reshape(count, 4)
        total: Ints = raw.astype(np.int64).sum(axis=1)
        return total
