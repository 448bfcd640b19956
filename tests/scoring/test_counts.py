"""Pixel counts against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from avsbench_harness.scoring.counts import count_codes, count_labels

SIZES = [(1, 1, 1), (2, 3, 5), (3, 8, 8), (2, 7, 9), (5, 33, 17)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", [1, 3, 256])
def test_codes(size, levels):
    rng = np.random.default_rng(3)
    codes = rng.choice(np.arange(256), levels, replace=False)[rng.integers(0, levels, size)].astype(np.uint8)
    masks = rng.integers(0, 2, size).astype(np.uint8)
    want = [[np.bincount(codes[t][masks[t] == g], minlength=256) for g in (0, 1)] for t in range(len(codes))]
    assert np.array_equal(count_codes(codes, masks), want)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("block", [1, 6, 16])
def test_labels(size, block):
    rng = np.random.default_rng(4)

    def blocky():
        return rng.integers(0, 71, size).astype(np.uint8).repeat(block, axis=2)

    labels, truth = blocky(), blocky()
    truth[labels % 3 == 0] = labels[labels % 3 == 0]
    for t, (both, ours, theirs) in enumerate(count_labels(labels, truth)):
        assert np.array_equal(both, np.bincount(labels[t][labels[t] == truth[t]], minlength=71))
        assert np.array_equal(ours, np.bincount(labels[t].ravel(), minlength=71))
        assert np.array_equal(theirs, np.bincount(truth[t].ravel(), minlength=71))


def test_non_contiguous_views():
    rng = np.random.default_rng(5)
    big = rng.integers(0, 71, (4, 16, 32)).astype(np.uint8)
    view = big[::2, ::2, 1::2]
    assert np.array_equal(count_labels(view, view), count_labels(view.copy(), view.copy()))
    masks = (view > 30).astype(np.uint8)
    assert np.array_equal(count_codes(view, masks), count_codes(view.copy(), masks))


def test_values_out_of_range_are_refused():
    zeros = np.zeros((1, 4, 4), np.uint8)
    with pytest.raises(ValueError, match="0 and 1, found 2"):
        count_codes(zeros, zeros + 2)
    for pair in ((zeros + 71, zeros), (zeros, zeros + 255)):
        with pytest.raises(ValueError, match="0 to 70"):
            count_labels(*pair)
