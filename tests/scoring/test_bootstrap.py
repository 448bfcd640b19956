"""Intervals against scipy and by their coverage."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from avsbench_harness.scoring.bootstrap import bootstrap_intervals, resampled_sums


def mean(sums):
    return {"mean": sums[..., 1] / sums[..., 0]}


def table(values):
    return np.column_stack([np.ones(len(values)), values])


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_scipy(seed):
    values = np.random.default_rng(seed).beta(5, 1, 200)  # skewed, as J is
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=9999, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    ours = bootstrap_intervals(table(values), mean, ["mean"])["mean"]
    width = theirs.high - theirs.low
    assert ours == pytest.approx(tuple(theirs), abs=0.08 * width)


def test_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        low, high = bootstrap_intervals(table(rng.beta(5, 1, 60)), mean, ["mean"])["mean"]
        hits += low <= 5 / 6 <= high
    assert 178 <= hits <= 198  # 95 % of 200 is 190, three standard deviations are 9


def test_is_the_same_every_time():
    sums = table(np.random.default_rng(0).random(50))
    assert bootstrap_intervals(sums, mean, ["mean"]) == bootstrap_intervals(sums, mean, ["mean"])


def test_constant_values_give_a_point():
    assert bootstrap_intervals(table(np.full(20, 0.25)), mean, ["mean"])["mean"] == (0.25, 0.25)


def test_one_clip_gives_no_interval():
    assert bootstrap_intervals(table(np.ones(1)), mean, ["mean"]) == {"mean": None}


def test_tables_are_resampled_together():
    values = np.random.default_rng(0).random(30)
    for first, second in resampled_sums([table(values), table(values)[:, ::-1]], resamples=300):
        assert np.array_equal(first, second[:, ::-1])
        assert (first[:, 0] == 30).all()
