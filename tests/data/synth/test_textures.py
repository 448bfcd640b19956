from __future__ import annotations

import colorsys
from itertools import combinations

import numpy as np
import pytest

from avsbench_harness.data.synth import textures
from avsbench_harness.data.synth.draws import Draws
from avsbench_harness.data.synth.kinds import HUES


@pytest.mark.parametrize("name", textures.TEXTURES)
def test_texture_blends_two_colours(name: str) -> None:
    v, u = np.mgrid[-1024:1024:8, -1024:1024:8].astype(np.int64)
    weight = textures.TEXTURES[name](u, v, 5)
    assert weight.shape == u.shape
    assert weight.min() >= 0
    assert weight.max() <= 256
    assert weight.std() > 30


def test_textures_differ() -> None:
    v, u = np.mgrid[-1024:1024:8, -1024:1024:8].astype(np.int64)
    drawn = [texture(u, v, 5) for texture in textures.TEXTURES.values()]
    for one, other in combinations(drawn, 2):
        assert np.abs(one - other).mean() > 40


def test_clouds_are_continuous() -> None:
    v, u = np.mgrid[0:200, 0:200].astype(np.int64)
    clouds = textures.clouds(u, v, 50, 1)
    assert np.abs(np.diff(clouds, axis=0)).max() <= 7  # 255 / 50, rounded, at most a step and a carry
    assert np.abs(np.diff(clouds, axis=1)).max() <= 7
    assert np.ptp(clouds) > 120


@pytest.mark.parametrize("hue", range(0, HUES, 96))
def test_colour_is_hsv(hue: int) -> None:
    expected = np.array(colorsys.hsv_to_rgb(hue / HUES, 200 / 255, 240 / 255)) * 255
    np.testing.assert_allclose(textures.colour(hue, 200, 240), expected, atol=2)


def test_backgrounds_are_textured_and_have_low_saturation() -> None:
    for seed in range(12):
        picture = textures.background(Draws(seed, "background"), 128)
        assert picture.shape == (128, 128, 3)
        assert picture.std(axis=(0, 1)).max() > 6, seed
        assert picture.min() >= 0
        assert picture.max() <= 200  # the brightest value of a background's colours
