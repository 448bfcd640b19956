"""Paired comparisons of submissions."""

from __future__ import annotations

import json

import numpy as np
import pytest

from avsbench_harness.errors import UsageError
from avsbench_harness.scoring import compare, encode, score_object


@pytest.fixture
def masks() -> np.ndarray:
    rng = np.random.default_rng(0)
    masks = np.zeros((40, 5, 32, 32), np.uint8)
    for clip in masks:
        y, x, side = rng.integers(0, 16, 3)
        clip[:, y : y + side + 8, x : x + side + 8] = 1
    return masks


def disturbed(masks: np.ndarray, share: float, seed: int) -> np.ndarray:
    flip = np.random.default_rng(seed).random(masks.shape) < share
    return encode(np.where(flip, 1 - masks, masks).astype(np.float32))


def test_a_better_submission_is_significantly_better(masks):
    a, b = (score_object(disturbed(masks, share, 1), masks) for share in (0.02, 0.10))
    result = compare(a, b)
    j = result.differences[0]
    assert j.metric == "J"
    assert j.difference == pytest.approx(a.metrics["J"] - b.metrics["J"])
    assert 0 < j.interval[0] < j.difference < j.interval[1]
    assert (j.better, j.win_rate, j.wins, j.losses) == (1, 1, 40, 0)
    back = compare(b, a).differences[0]
    assert back.interval == pytest.approx((-j.interval[1], -j.interval[0]))
    assert back.win_rate == 0


def test_equal_submissions_are_rarely_significantly_different(masks):
    better = []
    for seed in range(20):
        a, b = (score_object(disturbed(masks, 0.05, 2 * seed + i), masks) for i in (0, 1))
        low, high = compare(a, b).differences[0].interval
        better.append(low > 0 or high < 0)
    assert sum(better) <= 4  # 1 of 20 is expected


def test_a_submission_against_itself(masks):
    scores = score_object(disturbed(masks, 0.05, 1), masks)
    for difference in compare(scores, scores).differences:
        assert (difference.difference, difference.better, difference.win_rate) == (0, 0.5, 0.5)


def test_clips_are_sorted_by_difference(masks):
    good = disturbed(masks, 0.02, 1)
    bad = good.copy()
    bad[7] = 0
    bad[3, :2] = 0
    table = compare(score_object(good, masks), score_object(bad, masks)).per_clip
    assert table["clip"].to_list()[:2] == ["7", "3"]
    assert table["J_difference"].iloc[2:].abs().max() == 0


def test_json_has_no_nan(masks):
    masks[5] = 0  # F is undefined for a clip without an object
    codes = disturbed(masks, 0.02, 1)
    value = compare(score_object(codes, masks), score_object(codes, masks)).to_json(clips=40)
    assert len(json.loads(json.dumps(value, allow_nan=False))["clips"]) == 40


def test_scores_of_different_protocols_or_clips_are_refused(masks):
    codes = disturbed(masks, 0.02, 1)
    with pytest.raises(UsageError, match="protocol"):
        compare(score_object(codes, masks), score_object(codes, masks, "confusion"))
    with pytest.raises(UsageError, match=r"avsbench \(batch 1\) and avsbench \(batch 4\)"):
        compare(score_object(codes, masks, "avsbench"), score_object(codes, masks, "avsbench", batch=4))
    with pytest.raises(UsageError, match="clips"):
        compare(score_object(codes, masks), score_object(codes[:9], masks[:9]))
