"""Scores of arrays: errors, and properties that hold for any input."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from avsbench_harness.errors import UsageError
from avsbench_harness.scoring import encode, get_protocol, protocols, score_object, score_semantic
from avsbench_harness.scoring.api import every_protocol
from avsbench_harness.submission.codes import looks_binary

OBJECT = [name for name in protocols("s4") if name not in ("combo", "avsegformer")]
SEMANTIC = list(protocols("avss"))


@st.composite
def object_clips(draw):
    shape = draw(st.tuples(st.integers(1, 4), st.integers(3, 5), st.integers(1, 6), st.integers(1, 6)))
    codes = draw(
        hnp.arrays(np.uint8, shape, elements=st.integers(0, 255)).filter(
            lambda codes: not any(looks_binary(clip) for clip in codes)
        )
    )
    return codes, draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 1)))


@st.composite
def semantic_clips(draw):
    shape = draw(st.tuples(st.integers(1, 4), st.just(10), st.integers(1, 4), st.integers(1, 5)))
    classes = st.sampled_from([0, 1, 2, 40, 70])
    labels, truth = (draw(hnp.arrays(np.uint8, shape, elements=classes)) for _ in range(2))
    valid = np.ones(shape[:2], bool)
    valid[draw(hnp.arrays(bool, shape[0])), 5:] = False
    return labels, truth, valid


def in_unit_interval(scores) -> bool:
    return all(
        value is None or 0 <= value <= 1 + 1e-6  # published float32 F can round above 1
        for name, value in scores.metrics.items()
        if "decay" not in name and name != "classes_seen"
    )


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(
        a[name] == b[name] or a[name] == pytest.approx(b[name], abs=1e-12) for name in a
    )


@settings(max_examples=60, deadline=None)
@given(object_clips())
def test_object_metrics_lie_in_the_unit_interval(clips):
    for name in OBJECT:
        assert in_unit_interval(score_object(*clips, name)), name
    assert all(value is None or value <= 1 for value in score_object(*clips).metrics.values())


@settings(max_examples=60, deadline=None)
@given(semantic_clips())
def test_semantic_metrics_lie_in_the_unit_interval(clips):
    for name in SEMANTIC:
        assert in_unit_interval(score_semantic(*clips, protocol=name)), name


@settings(max_examples=60, deadline=None)
@given(object_clips(), st.randoms(use_true_random=False))
def test_canonical_scores_are_independent_of_order_and_chunks(clips, random):
    codes, masks = clips
    whole = score_object(codes, masks)
    order = list(range(len(codes)))
    random.shuffle(order)
    assert same(score_object(codes[order], masks[order]).metrics, whole.metrics)
    parts = [score_object(codes[i : i + 1], masks[i : i + 1]) for i in range(len(codes))]
    together = whole.tally.reduce(sum(part.tally.sums.sum(axis=0) for part in parts))
    for name, value in whole.metrics.items():
        assert value == pytest.approx(float(together[name]), abs=1e-12) or np.isnan(together[name])


@settings(max_examples=60, deadline=None)
@given(semantic_clips(), st.randoms(use_true_random=False))
def test_semantic_scores_are_independent_of_order_and_padded_frames(clips, random):
    labels, truth, valid = clips
    order = list(range(len(labels)))
    random.shuffle(order)
    for name in SEMANTIC:
        whole = score_semantic(labels, truth, valid, protocol=name).metrics
        assert same(score_semantic(labels[order], truth[order], valid[order], protocol=name).metrics, whole)
        padded = np.where(valid[:, :, None, None], labels, 7).astype(np.uint8)
        assert same(score_semantic(padded, truth, valid, protocol=name).metrics, whole)


@settings(max_examples=60, deadline=None)
@given(object_clips())
def test_perfect_predictions_score_one(clips):
    _, masks = clips
    codes = encode(masks.astype(np.float32))
    metrics = score_object(codes, masks).metrics
    assert metrics["J"] == 1
    for name in ("F", "F_half", "F_split", "J_object"):
        assert metrics[name] == (1 if masks.any() else None)
    assert metrics["false_positive_area"] in (0, None)
    assert score_object(codes, masks, "davis").metrics["J&F"] == 1
    assert score_object(codes, masks, "confusion").metrics["mIoU"] == 1
    labels = np.where(masks > 0, 33, 0).astype(np.uint8)
    metrics = score_semantic(labels, labels).metrics
    assert (metrics["mIoU_seen"], metrics["F_seen"]) == (1, 1)


@settings(max_examples=60, deadline=None)
@given(object_clips(), st.integers(1, 5))
def test_a_batch_as_large_as_the_split_is_one_batch(clips, batch):
    codes, masks = clips
    n, t = codes.shape[:2]
    whole = score_object(codes, masks, "avsbench", batch=n + batch)
    merged = score_object(
        codes.reshape(1, n * t, *codes.shape[2:]), masks.reshape(1, n * t, *codes.shape[2:]), "avsbench"
    )
    assert same(whole.metrics, merged.metrics)


def test_batches_of_many_clips_follow_their_order():
    rng = np.random.default_rng(0)
    codes, masks = rng.integers(0, 256, (150, 5, 6, 6)).astype(np.uint8), rng.integers(0, 2, (150, 5, 6, 6))
    for batch in (1, 3, 4, 100):
        whole = score_object(codes, masks, "avsbench", batch=batch)
        parts = [
            score_object(codes[i : i + batch], masks[i : i + batch], "avsbench", batch=batch).metrics
            for i in range(0, 150, batch)
        ]
        for name in "JF":
            assert whole.metrics[name] == pytest.approx(np.mean([part[name] for part in parts]), abs=1e-12)
        assert len(whole.per_clip) == 150


def test_every_protocol_has_a_name_and_a_definition():
    for task in ("s4", "ms3", "avss"):
        for name, definition in protocols(task).items():
            assert definition.startswith(f"{name}: ")
    assert next(iter(protocols("ms3"))) == "object/1"
    assert next(iter(protocols("avss"))) == "semantic/1"
    assert {p.batch for p in every_protocol("s4") if p.name == "avsbench"} == {1, 4}


def test_unknown_names_and_batches():
    with pytest.raises(UsageError, match="Did you mean 'avsbench'"):
        get_protocol("s4", "avsbenhc")
    with pytest.raises(UsageError, match="Unknown protocol for avss 'object/1'"):
        get_protocol("avss", "object/1")
    with pytest.raises(UsageError, match="does not depend on batches"):
        get_protocol("s4", "object/1", batch=4)
    with pytest.raises(UsageError, match="at least 1"):
        get_protocol("s4", "avsbench", batch=0)


def test_invalid_arrays_are_refused():
    codes, masks = np.zeros((2, 5, 4, 4), np.uint8), np.zeros((2, 5, 4, 4), np.uint8)
    with pytest.raises(ValueError, match=r"encode\(prob\)"):
        score_object(codes.astype(np.float32), masks)
    with pytest.raises(ValueError, match="predictions have shape"):
        score_object(codes[:1], masks)
    with pytest.raises(ValueError, match="predictions have shape"):
        score_object(codes, masks, "combo")
    with pytest.raises(ValueError, match="0 and 1, found 255"):
        score_object(codes, masks + 255)
    with pytest.raises(ValueError, match="integers from 0 to 255"):
        score_object(codes, masks + 0.5)
    with pytest.raises(ValueError, match="predictions have shape"):
        score_object(codes[:0], masks[:0])
    with pytest.raises(ValueError, match="3 names for 2 clips"):
        score_object(codes, masks, clips=["a", "b", "c"])
    with pytest.raises(ValueError, match="0 to 70, found 71"):
        score_semantic(codes + 71, masks)
    with pytest.raises(ValueError, match="valid frame in every clip"):
        score_semantic(codes, masks, np.zeros((2, 5), bool))


def test_masks_may_be_bool_integer_or_float():
    rng = np.random.default_rng(0)
    codes, masks = rng.integers(0, 256, (2, 5, 8, 8)).astype(np.uint8), rng.integers(0, 2, (2, 5, 8, 8))
    want = score_object(codes, masks.astype(np.uint8)).metrics
    for dtype in (bool, np.int64, np.float32):
        assert score_object(codes, masks.astype(dtype)).metrics == want


def test_tables_and_json():
    rng = np.random.default_rng(0)
    codes, masks = rng.integers(0, 256, (6, 5, 8, 8)).astype(np.uint8), rng.integers(0, 2, (6, 5, 8, 8))
    scores = score_object(codes, masks, clips=list("abcdef"))
    assert scores.per_clip["clip"].to_list() == list("abcdef")
    assert scores.per_clip["J"].mean() == pytest.approx(scores.metrics["J"])
    assert scores.per_class is None
    value = scores.to_json()
    assert (value["protocol"], value["n"], value["synthetic"]) == ("object/1", 6, False)
    for name in scores.main:
        low, high = value["intervals"][name]
        assert low <= value["metrics"][name] <= high


def test_binary_masks_instead_of_codes_warn():
    masks = np.zeros((1, 5, 4, 4), np.uint8)
    masks[0, :, :2] = 1
    with pytest.warns(UserWarning, match="All codes are 0 and 1, .*; multiply a binary mask by 255"):
        assert score_object(masks, masks).metrics["J"] == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert score_object(masks * np.uint8(255), masks).metrics["J"] == 1
        score_object(masks * 0, masks)
