"""Classes in masks are compared with those that the real and synthetic tables list."""

from __future__ import annotations

import pytest

from avsbench_harness.data.avsbench.labels import explain_classes, listed_classes
from avsbench_harness.data.avsbench.tables import read_avss
from avsbench_harness.tasks import CLASSES

GUITAR, MAN, CAT, DOG = (CLASSES.index(name) for name in ("guitar", "man", "cat", "dog"))


def test_real_table_lists_classes_alone(meta):
    rows = read_avss(meta / "metadata.csv")
    assert all(listed_classes(row.category) is not None for row in rows)
    for row in rows:  # a mask may hold some of the listed classes
        assert explain_classes({0, *list(listed_classes(row.category))[:1]}, row.category) is None


@pytest.mark.parametrize(
    ("found", "category", "certain"),
    [
        ({0, GUITAR}, "guitar_man", None),
        ({0}, "guitar", None),
        ({0}, "off-the-screen", None),
        ({GUITAR}, "guitar", None),
        ({0, GUITAR}, "lute", None),  # a name of no class
        ({1, GUITAR + 1}, "guitar", True),
        ({1, GUITAR + 1, MAN + 1}, "man_guitar", True),
        ({1}, "guitar", True),  # background alone
        ({0, GUITAR + 1}, "guitar", False),  # zeros are no label if the labels are counted from 1
        ({0, DOG}, "cat", False),
        ({0, DOG, CAT}, "cat", False),
        ({0, GUITAR}, "off-the-screen", False),
    ],
)
def test_explanations(found, category, certain):
    explained = explain_classes(found, category)
    assert (explained and explained[1]) == certain


def test_swapped_channels():
    message, certain = explain_classes({0, 4}, "accordion")  # (0, 0, 128) is baby, (128, 0, 0) accordion
    assert certain
    assert message == (
        "holds colours with red and blue swapped (baby for accordion); write the masks as RGB, not BGR"
    )
    assert explain_classes({0, 1, 4}, "accordion_baby") is None
    explained = explain_classes({0, 4}, "accordion", colours=False)
    assert explained is not None
    assert not explained[1]
