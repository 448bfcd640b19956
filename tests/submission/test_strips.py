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
    assert tuple(drawn[4, 4]) == (0, 200, 83)
    assert tuple(drawn[8, 16 + 8]) == (255, 47, 179)
    assert not drawn[:, 16:][4, 4].any()
