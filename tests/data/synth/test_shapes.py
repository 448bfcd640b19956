from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from avsbench_harness.data.synth import shapes
from avsbench_harness.data.synth.draws import TURN

SIZE = 129
CENTRE = 64 * 16


def at_centre(name: str, angle: int = 0) -> shapes.Mask:
    return shapes.raster(name, CENTRE, CENTRE, 50 * 16, angle, SIZE)


def iou(one: shapes.Mask, other: shapes.Mask) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("name", shapes.OUTLINES)
def test_shape_fills_its_radius_and_no_more(name: str) -> None:
    y, x = np.nonzero(at_centre(name))
    reach = np.hypot(x - 64, y - 64).max()
    assert 44 < reach < 60  # the corners of the square lie at 55
    assert len(x) > 0.15 * np.pi * 50**2


def test_shapes_differ_at_any_angle() -> None:
    """No rotated shape covers another one."""
    turned = {name: [at_centre(name, a) for a in range(0, TURN, TURN // 32)] for name in shapes.OUTLINES}
    for one, other in combinations(shapes.OUTLINES, 2):
        best = max(iou(turned[one][0], mask) for mask in turned[other])
        assert best < 0.93, (one, other)


@pytest.mark.parametrize("name", shapes.OUTLINES)
def test_shape_moves_by_whole_pixels_and_turns(name: str) -> None:
    moved = shapes.raster(name, CENTRE + 7 * 16, CENTRE - 3 * 16, 50 * 16, 0, SIZE)
    np.testing.assert_array_equal(moved, np.roll(at_centre(name), (-3, 7), axis=(0, 1)))
    # Clockwise, as seen in a picture whose rows run down.
    assert iou(at_centre(name, TURN // 4), np.rot90(at_centre(name), k=-1)) > 0.97


def test_shape_is_cut_off_at_the_border() -> None:
    mask = shapes.raster("disk", 0, 0, 50 * 16, 0, SIZE)
    assert mask[0, 0]
    assert mask.sum() == pytest.approx(np.pi * 50**2 / 4, rel=0.05)


@pytest.mark.parametrize("name", ["ring", "gear"])
def test_holes_are_not_filled(name: str) -> None:
    assert not at_centre(name)[64, 64]


def test_rim_is_the_mask_near_its_edge() -> None:
    mask = at_centre("square")
    rim = shapes.rim(mask)
    assert not (rim & ~mask).any()
    inner = mask & ~rim
    assert inner.sum() == (np.sqrt(mask.sum()) - 4) ** 2
