from __future__ import annotations

from itertools import pairwise

from avsbench_harness.data.avsbench import tables
from avsbench_harness.data.synth import shapes, sounds, textures
from avsbench_harness.data.synth.kinds import HUES, KINDS, S4_CATEGORIES, SHAPES, TEXTURES, TIMBRES
from avsbench_harness.tasks import CLASSES


def test_one_kind_for_each_class_of_avss() -> None:
    assert [kind.index + 1 for kind in KINDS] == list(range(1, len(CLASSES)))


def test_categories_are_those_of_s4() -> None:
    assert len(S4_CATEGORIES) == 23
    assert set(S4_CATEGORIES) == set(tables.S4_CATEGORIES.values())


def test_no_two_kinds_have_the_same_appearance_or_timbre() -> None:
    assert len({(kind.shape, kind.texture) for kind in KINDS}) == len(KINDS)
    assert len({(kind.timbre, kind.register) for kind in KINDS}) == len(KINDS)


def test_neighbours_differ_in_everything() -> None:
    for one, next_ in pairwise(KINDS):
        assert one.shape != next_.shape
        assert one.texture != next_.texture
        assert one.timbre != next_.timbre
        distance = abs(one.hue - next_.hue)
        assert min(distance, HUES - distance) > 500  # more than the 200 by which instances stray


def test_every_name_is_implemented() -> None:
    assert set(SHAPES) == set(shapes.OUTLINES)
    assert set(TEXTURES) == set(textures.TEXTURES)
    assert set(TIMBRES) == set(sounds.TIMBRES)
