"""Bootstrap intervals against scipy, and their coverage."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from avsbench_harness.scoring import bootstrap
from avsbench_harness.scoring.bootstrap import bootstrap_intervals, percentile_interval, resampled_sums


def mean(sums):
    return {"mean": sums[..., 1] / sums[..., 0]}


def table(values):
    return np.column_stack([np.ones(len(values)), values])


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_scipy(seed):
    values = np.random.default_rng(seed).beta(5, 1, 200)  # skewed like J
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=9999, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    ours = bootstrap_intervals(table(values), mean, ["mean"])["mean"]
    width = theirs.high - theirs.low
    assert ours == pytest.approx(tuple(theirs), abs=0.08 * width)


def test_coverage():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        low, high = bootstrap_intervals(table(rng.beta(5, 1, 60)), mean, ["mean"])["mean"]
        hits += low <= 5 / 6 <= high
    assert 178 <= hits <= 198  # 95 % of 200 is 190, three standard deviations are 9


def test_intervals_are_deterministic():
    sums = table(np.random.default_rng(0).random(50))
    assert bootstrap_intervals(sums, mean, ["mean"]) == bootstrap_intervals(sums, mean, ["mean"])


def test_constant_values_have_an_interval_of_one_point():
    assert bootstrap_intervals(table(np.full(20, 0.25)), mean, ["mean"])["mean"] == (0.25, 0.25)


def test_one_clip_has_no_interval():
    assert bootstrap_intervals(table(np.ones(1)), mean, ["mean"]) == {"mean": None}


def test_tables_are_resampled_together():
    values = np.random.default_rng(0).random(30)
    for first, second in resampled_sums([table(values), table(values)[:, ::-1]], resamples=300):
        assert np.array_equal(first, second[:, ::-1])
        assert (first[:, 0] == 30).all()


@pytest.mark.parametrize("kept", [0, 2**23])
@pytest.mark.parametrize("share", [0.2, 0.9])  # of the entries that are not 0
def test_sums_are_those_of_the_drawn_rows(monkeypatch, kept, share):
    """All rows are drawn at once here, and the rows of a resample are added one by one."""
    monkeypatch.setattr(bootstrap, "_KNOWN", kept)
    rng = np.random.default_rng(0)
    sums = rng.random((70, 30)) * (rng.random((70, 30)) < share)
    sums[:, 4] = 0
    drawn = np.random.default_rng(3).integers(0, 70, (600, 70))
    found = np.concatenate([chunk for (chunk,) in resampled_sums([sums], resamples=600, seed=3)])
    np.testing.assert_allclose(found, sums[drawn].sum(axis=1), rtol=1e-13)


def test_percentile_interval_ignores_undefined_values():
    values = np.append(np.arange(201.0), [np.nan, np.inf])
    assert percentile_interval(values) == pytest.approx((5, 195))
    assert percentile_interval(np.array([np.nan])) is None
