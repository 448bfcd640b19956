from __future__ import annotations

import numpy as np

from avsbench_harness.submission import strips


def test_colours_of_outlines() -> None:
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    truth, prediction = np.zeros((2, 16, 16), np.uint8), np.zeros((2, 16, 16), np.uint8)
    truth[0, 4:8, 4:8] = 1
    prediction[1, 8:12, 8:12] = 1
    drawn = strips.strip(frames, truth, prediction)
    assert drawn.shape == (16, 32, 3)
    assert tuple(drawn[4, 4]) == (255, 214, 10)
    assert tuple(drawn[8, 16 + 8]) == (0, 150, 255)
    assert not drawn[:, 16:][4, 4].any()


def test_outlines_have_a_dark_edge_on_bright_frames() -> None:
    frames, truth = np.full((1, 16, 16, 3), 255, np.uint8), np.zeros((1, 16, 16), np.uint8)
    truth[0, 6:10, 6:10] = 1
    drawn = strips.strip(frames, truth, np.zeros_like(truth))
    assert tuple(drawn[6, 6]) == (255, 214, 10)
    assert tuple(drawn[8, 4]) == (0, 0, 0)
    assert tuple(drawn[0, 0]) == (255, 255, 255)
