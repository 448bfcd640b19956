"""Random draws and tables that are the same bits on every machine.

Three things usually differ between machines: NumPy's distributions (their streams may change with its
version), the last bit of ``sin``, ``exp`` or ``pow`` (it depends on the C library and on the processor's
vector unit), and sums of floats (their order depends on the vector width). So random numbers come from
``random_raw`` of a Philox generator, whose stream is fixed by its paper; sines and decibels come from tables
rounded to integers so coarsely that the last bit cannot matter; and what is left are integers, and
elementwise + - x / and square roots of float64, which IEEE 754 fixes to the bit.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Angles are counted in 4096ths of a turn.
TURN = 4096
#: ``SIN[a]`` = 32767 sin(2 pi a / TURN), rounded.
SIN: Ints = np.array([round(32767 * math.sin(2 * math.pi * a / TURN)) for a in range(TURN)], dtype=np.int64)
#: ``COS[a]`` = 32767 cos(2 pi a / TURN), rounded.
COS: Ints = np.roll(SIN, -TURN // 4)
#: ``ATTENUATION[d]`` is the amplitude of -d dB in steps of 1/4096.
ATTENUATION: Floats = np.array([round(4096 * 10 ** (-d / 20)) for d in range(61)], dtype=np.float64) / 4096


class Draws:
    """The random numbers of one named part of one clip.

    Args:
        seed: the benchmark's seed, 0 .. 2**64 - 1.
        name: what is drawn, such as ``s4/train/picture``; parts with other names are independent.
        index: number of the clip, so that a longer benchmark begins with the clips of a shorter one.
    """

    def __init__(self, seed: int, name: str, index: int = 0) -> None:
        key = [seed, zlib.crc32(name.encode()) << 32 | index]
        self._bits = np.random.Philox(key=np.array(key, dtype=np.uint64))

    def integer(self, low: int, high: int) -> int:
        """Uniform among ``low .. high``, both included (the bias of the multiplication is below 2**-40)."""
        raw = int(self._bits.random_raw()) >> 11
        return low + (raw * (high - low + 1) >> 53)

    def chance(self, numerator: int, denominator: int) -> bool:
        """True with that probability."""
        return self.integer(1, denominator) <= numerator

    def sample(self, count: int, total: int) -> list[int]:
        """``count`` different numbers of ``0 .. total - 1`` in random order (Fisher and Yates)."""
        pool = list(range(total))
        for i in range(count):
            j = self.integer(i, total - 1)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:count]

    def noise(self, count: int) -> Ints:
        """(count,) bell-shaped integers of mean 0 and standard deviation 37,837: sums of four 16-bit ones."""
        raw = self._bits.random_raw(count).astype("<u8").view("<i2").reshape(count, 4)
        total: Ints = raw.astype(np.int64).sum(axis=1)
        return total
