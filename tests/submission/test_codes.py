"""Threshold codes, and labels from class scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from avsbench_harness.submission.codes import (
    EDGES,
    OBJECT,
    THRESHOLD_CODES,
    THRESHOLDS,
    decode,
    encode,
    labels_from_scores,
)

probabilities = hnp.arrays(
    np.float32, hnp.array_shapes(max_dims=4, max_side=6), elements=st.floats(0, 1, width=32)
)


def test_thresholds_match_the_golden_file():
    golden = Path(__file__).parents[1] / "fixtures" / "metrics" / "metrics_golden.json"
    assert THRESHOLDS.tolist() == json.loads(golden.read_text())["meta"]["thresholds"]


def test_thresholds_match_the_installed_torch():
    torch = pytest.importorskip("torch")
    theirs = torch.linspace(0, 1 - 1e-10, 255).numpy()
    # Without vector instructions, torch may round the last bit differently; ends and middle are exact.
    assert np.abs(theirs - THRESHOLDS).max() <= 6e-8
    assert theirs[[0, 127, 254]].tolist() == THRESHOLDS[[0, 127, 254]].tolist() == [0, 0.5, 1]


def decisions(p: np.ndarray) -> np.ndarray:
    """(256, ...): all comparisons of the metrics."""
    return np.concatenate([p[None] >= THRESHOLDS.reshape(-1, *[1] * p.ndim), p[None] > 0.5])


def decisions_of_codes(codes: np.ndarray) -> np.ndarray:
    return np.concatenate(
        [codes[None] >= THRESHOLD_CODES.reshape(-1, *[1] * codes.ndim), codes[None] >= OBJECT]
    )


def test_comparisons_near_the_edges_are_preserved():
    steps = np.arange(-6, 7)
    near = (EDGES.view(np.int32)[:, None] + steps).ravel()
    near = near[(near >= 0) & (near <= np.float32(1).view(np.int32))].astype(np.int32).view(np.float32)
    everywhere = np.arange(0, np.float32(1).view(np.int32), 99_991, dtype=np.int32).view(np.float32)
    p = np.concatenate([near, everywhere, np.float32([0, 0.5, 1])])
    assert np.array_equal(decisions(p), decisions_of_codes(encode(p)))


@given(probabilities)
def test_comparisons_are_preserved(p):
    assert np.array_equal(decisions(p), decisions_of_codes(encode(p)))


@given(probabilities)
def test_order_is_preserved(p):
    order = np.argsort(p, axis=None, kind="stable")
    assert (np.diff(encode(p).ravel()[order].astype(int)) >= 0).all()


def test_encode_inverts_decode():
    codes = np.arange(256, dtype=np.uint8)
    assert np.array_equal(encode(decode(codes)), codes)
    assert decode(codes)[[0, 127, 255]].tolist() == [0, 0.5, 1]


@given(probabilities)
def test_decode_returns_the_smallest_probability_of_a_code(p):
    back = decode(encode(p))
    assert (back <= p).all()
    assert (p - back < 1 / 254 + 1e-6).all()


def test_codes_differ_from_rounding():
    p = np.linspace(0, 1, 10_001, dtype=np.float32)
    assert (encode(p) != np.round(255 * p)).mean() > 0.1


@pytest.mark.parametrize("shape", [(), (3,), (2, 0, 4), (2, 5, 4, 4)])
def test_any_shape(shape):
    assert encode(np.full(shape, 0.7, np.float32)).shape == shape


def test_float64_and_views_are_rounded_to_float32_first():
    p = np.random.default_rng(0).random((6, 8))
    assert np.array_equal(encode(p), encode(p.astype(np.float32)))
    assert np.array_equal(encode(p.T[::2]), encode(np.ascontiguousarray(p.T[::2])))
    assert encode(np.float64(0.5 + 1e-12)) == encode(np.float32(0.5)) == 127


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "1 of 4 probabilities are NaN"),
        (np.inf, "sigmoid"),
        (-1e-6, "sigmoid"),
        (1.0000001, "sigmoid"),
        (12.5, "0 to 12.5"),
    ],
)
def test_invalid_probabilities_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        encode(np.float32([0, 0.2, value, 1]))


def test_integers_are_refused():
    with pytest.raises(ValueError, match="uint8; codes need no encoding"):
        encode(np.zeros(3, np.uint8))
    with pytest.raises(ValueError, match="uint8, got float32"):
        decode(np.zeros(3, np.float32))


def test_labels_are_the_argmax_without_ties():
    scores = np.random.default_rng(0).normal(size=(2, 3, 71, 4, 5)).astype(np.float32)
    assert np.array_equal(labels_from_scores(scores), scores.argmax(axis=-3))


def test_ties_before_and_after_the_softmax_go_to_the_lower_class():
    scores = np.zeros((71, 1, 3), np.float32)
    scores[[12, 64]] = 3
    scores[64, 0, 1] = np.nextafter(np.float32(3), np.float32(4))  # larger, but e**-2e-7 rounds apart
    scores[[12, 64], 0, 2] = 0.01, np.nextafter(np.float32(0.01), np.float32(1))  # larger, but e**-1e-9 is 1
    assert labels_from_scores(scores).tolist() == [[12, 64, 12]]


def test_invalid_scores_are_refused():
    scores = np.zeros((71, 2, 2), np.float32)
    scores[3, 1, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        labels_from_scores(scores)
    with pytest.raises(ValueError, match=r"\(\.\.\., C, H, W\)"):
        labels_from_scores(scores[0])
