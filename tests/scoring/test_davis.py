"""DAVIS metrics against results of davis2017-evaluation."""

from __future__ import annotations

import numpy as np
import pytest

from avsbench_harness.scoring import encode, score_object
from avsbench_harness.scoring.davis import boundary_f, frame_metrics

CLOSE = {"rel": 0, "abs": 1e-9}
METRICS = {name: name.removesuffix("_mean") for name in (
    "J_mean", "J_recall", "J_decay", "F_mean", "F_recall", "F_decay",
)}  # fmt: skip


def test_golden_clips(golden, object_case):
    for name, expected in golden["object"]["cases"].items():
        case, want = object_case(name), expected["davis"]
        frames = frame_metrics(case.prob > 0.5, case.masks > 0)
        assert frames[:, 0] == pytest.approx(np.array(want["J_frames"]), **CLOSE)
        assert frames[:, 1] == pytest.approx(np.array(want["F_frames"]), **CLOSE)
        metrics = score_object(encode(case.prob)[None], case.masks[None], "davis").metrics
        for theirs, ours in METRICS.items():
            assert metrics[ours] == pytest.approx(want[theirs], **CLOSE)


@pytest.mark.parametrize("chosen", ["all", "exact_only"])
@pytest.mark.parametrize(
    ("key", "protocol"),
    [("davis_all_frames", "davis"), ("davis_semi_supervised_drop_first_last", "davis-semi")],
)
def test_golden_means(golden, object_case, chosen, key, protocol):
    names = [n for n, case in golden["object"]["cases"].items() if chosen == "all" or case["exact"]]
    cases = [object_case(name) for name in names]
    scores = score_object(
        encode(np.stack([case.prob for case in cases])), np.stack([case.masks for case in cases]), protocol
    )
    for theirs, expected in golden["object"]["aggregate"][chosen][key].items():
        assert scores.metrics[theirs.removesuffix("_mean")] == pytest.approx(expected, **CLOSE)


@pytest.mark.parametrize("name", ["car-shadow", "libby"])
def test_real_masks(davis_sequence, name):
    sequence = davis_sequence(name)
    want = sequence.expected["davis2017"]
    frames = frame_metrics(sequence.predicted, sequence.truth)
    assert frames[:, 0] == pytest.approx(np.array(want["J_per_frame"]), abs=1e-8)  # stored with 8 decimals
    assert frames[:, 1] == pytest.approx(np.array(want["F_per_frame"]), abs=1e-8)
    codes = encode(sequence.predicted.astype(np.float32))
    metrics = score_object(codes[None], sequence.truth[None], "davis-semi").metrics
    for theirs, ours in METRICS.items():
        assert metrics[ours] == pytest.approx(want[theirs], **CLOSE)
    assert metrics["J&F"] == pytest.approx((want["J_mean"] + want["F_mean"]) / 2, **CLOSE)


def test_empty_and_full_masks():
    empty, full = np.zeros((1, 40, 60), bool), np.ones((1, 40, 60), bool)
    assert frame_metrics(empty, empty).tolist() == [[1, 1]]
    assert frame_metrics(full, full).tolist() == [[1, 1]]
    assert frame_metrics(full, empty).tolist() == [[0, 1]]  # a full mask has no boundary
    dot = empty.copy()
    dot[0, 20, 30] = True
    assert frame_metrics(dot, empty).tolist() == [[0, 0]]
    assert frame_metrics(empty, dot).tolist() == [[0, 0]]


def test_tolerance_is_a_euclidean_disk():
    def square(at):
        mask = np.zeros((100, 200), np.uint8)
        mask[40 : at[0], 40 : at[1]] = 1
        return mask

    # The tolerance is ceil(0.008 * hypot(100, 200)) = 2 pixels.
    assert boundary_f(square((60, 60)), square((60, 60))) == 1
    assert boundary_f(square((60, 62)), square((60, 60))) == 1
    assert boundary_f(square((60, 63)), square((60, 60))) < 1


def test_clips_without_inner_frames_are_not_counted():
    codes, masks = np.full((2, 2, 8, 8), 255, np.uint8), np.ones((2, 2, 8, 8), np.uint8)
    assert score_object(codes, masks, "davis-semi").metrics["J&F"] is None
    assert score_object(codes, masks, "davis").metrics["J&F"] == 1
