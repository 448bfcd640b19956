"""Textures of objects and backgrounds, and colours; integer arithmetic throughout.

A texture maps object coordinates (u to the right, v down, radius 1024) to the weight of the second of two
colours, 0 to 256.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.data.synth.draws import COS, SIN, TURN, Draws, Ints
from avsbench_harness.data.synth.kinds import HUES

Texture = Callable[[Ints, Ints, int], Ints]


def _hash(a: Ints, b: Ints, salt: int) -> Ints:
    """A pseudo-random number of 0..255 for each cell (a, b)."""
    mixed = (a * 73856093 ^ b * 19349663 ^ salt * 83492791) & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 15) * 0x2C1B3C6D & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 12) * 0x297A2D39 & 0xFFFFFFFF
    return (mixed ^ mixed >> 15) & 255


def clouds(u: Ints, v: Ints, cell: int, salt: int) -> Ints:
    """Return random values 0..255 on a square lattice of side ``cell``, bilinearly interpolated."""
    a, b, du, dv = u // cell, v // cell, u % cell, v % cell
    top: Ints = _hash(a, b, salt) * (cell - du) + _hash(a + 1, b, salt) * du
    bottom: Ints = _hash(a, b + 1, salt) * (cell - du) + _hash(a + 1, b + 1, salt) * du
    mixed: Ints = top * (cell - dv) + bottom * dv
    return mixed // (cell * cell)


def _on(condition: NDArray[np.bool_]) -> Ints:
    return condition.astype(np.int64) * 256


def _sectors(u: Ints, v: Ints, _: int) -> Ints:
    """Eight wedges of alternating colours: the parity of the number of lines to the right of a point."""
    sides = [u * int(SIN[TURN * k // 8]) > v * int(COS[TURN * k // 8]) for k in range(4)]
    return _on(sides[0] ^ sides[1] ^ sides[2] ^ sides[3])


def _bricks(u: Ints, v: Ints, _: int) -> Ints:
    row = v // 360
    return _on((v % 360 < 90) | ((u + row % 2 * 320) % 640 < 90))


#: Textures of the kinds; the third argument is the salt of an instance.
TEXTURES: dict[str, Texture] = {
    "plain": lambda u, v, _: np.clip((v + 1024) // 16, 0, 128),
    "stripes": lambda u, v, _: _on(v % 420 < 210),
    "dots": lambda u, v, _: _on((u % 480 - 240) ** 2 + (v % 480 - 240) ** 2 < 150**2),
    "rings": lambda u, v, _: _on(np.sqrt(u * u + v * v).astype(np.int64) % 360 < 180),
    "checker": lambda u, v, _: _on((u // 400 + v // 400) % 2 == 0),
    "zigzag": lambda u, v, _: _on((v + abs(u % 640 - 320)) % 460 < 200),
    "sectors": _sectors,
    "blotches": lambda u, v, salt: _on(clouds(u, v, 330, salt) > 128),
    "grid": lambda u, v, _: _on((u % 400 < 110) | (v % 400 < 110)),
    "speckle": lambda u, v, salt: _hash(u // 130, v // 130, salt),
    "bricks": _bricks,
}


def colour(hue: int, saturation: int, value: int) -> Ints:
    """Return RGB (3,), 0..255, of a hue in 1536ths of a turn and a saturation and value of 0..255."""
    ramp = [abs((hue + shift) % HUES - HUES // 2) - 256 for shift in (0, 1024, 512)]
    pure = np.clip(np.array(ramp, dtype=np.int64), 0, 255)
    return value * (255 * (255 - saturation) + saturation * pure) // (255 * 255)


def blend(weight: Ints, first: Ints, second: Ints) -> Ints:
    """Blend two colours to (...,3): ``first`` for weight 0, ``second`` for weight 256."""
    mixed: Ints = (first * (256 - weight[..., None]) + second * weight[..., None]) >> 8
    return mixed


def background(draws: Draws, size: int) -> Ints:
    """Return a background (size,size,3) of low saturation: clouds with bands, tiles or a gradient."""
    first = colour(draws.integer(0, HUES - 1), draws.integer(10, 90), draws.integer(50, 100))
    second = colour(draws.integer(0, HUES - 1), draws.integer(10, 90), draws.integer(140, 200))
    salt, angle, period = draws.integer(0, 1 << 20), draws.integer(0, TURN - 1), draws.integer(24, 80)
    y, x = np.mgrid[0:size, 0:size].astype(np.int64)
    weight = (2 * clouds(x, y, draws.integer(28, 72), salt) + clouds(x, y, 9, salt + 1)) // 3
    along = (x * int(COS[angle]) + y * int(SIN[angle])) >> 15
    across = (y * int(COS[angle]) - x * int(SIN[angle])) >> 15
    pattern = draws.integer(0, 3)
    if pattern == 0:
        weight = (weight + _on(along % period < period // 2)) // 2
    elif pattern == 1:
        weight = (2 * weight + _on((along // period + across // period) % 2 == 0)) // 3
    elif pattern == 2:
        weight = (weight + np.clip(128 + along, 0, 256)) // 2
    return blend(weight, first, second)
