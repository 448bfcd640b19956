"""Masks drawn onto frames."""

from __future__ import annotations

import numpy as np

from avsbench_harness.tasks import AVSS, S4
from avsbench_harness.video.overlay import OBJECT_COLOUR, RING, TINT, Overlay, colours_of, names_of

FRAME = np.random.default_rng(0).integers(0, 200, (120, 160, 3), np.uint8)


def test_exactly_the_pixels_of_the_mask_change() -> None:
    labels = np.zeros((120, 160), np.uint8)
    labels[30:90, 40:120] = 1
    before = FRAME.copy()
    drawn = Overlay(labels, colours_of(S4)).apply(FRAME)
    assert np.array_equal(FRAME, before)
    assert np.array_equal((drawn != FRAME).any(axis=2), labels == 1)


def test_inside_is_tinted_and_the_border_has_two_rings() -> None:
    labels = np.zeros((120, 160), np.uint8)
    labels[30:90, 40:120] = 1
    drawn = Overlay(labels, colours_of(S4)).apply(FRAME)
    expected = (FRAME[60, 80].astype(int) * (256 - TINT) + np.array(OBJECT_COLOUR) * TINT) // 256
    assert drawn[60, 80].tolist() == expected.tolist()
    assert drawn[30, 80].tolist() == list(RING)
    assert drawn[60, 41].tolist() == list(OBJECT_COLOUR)
    assert drawn[60, 42].tolist() == list(OBJECT_COLOUR)
    assert drawn[60, 43].tolist() != list(OBJECT_COLOUR)


def test_classes_have_the_colours_of_the_palette() -> None:
    labels = np.zeros((120, 160), np.uint8)
    labels[:, :80], labels[:, 80:] = 17, 41
    colours = colours_of(AVSS)
    drawn = Overlay(labels, colours).apply(FRAME)
    assert (names_of(AVSS)[17], names_of(AVSS)[41]) == ("dog", "man")
    assert drawn[60, 78].tolist() == colours[17].tolist()
    assert drawn[60, 81].tolist() == colours[41].tolist()
    assert (drawn != FRAME).any(axis=2).mean() > 0.99


def test_frames_without_labels_are_unchanged() -> None:
    drawn = Overlay(np.zeros((120, 160), np.uint8), colours_of(S4)).apply(FRAME)
    assert np.array_equal(drawn, FRAME)
