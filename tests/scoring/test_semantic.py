"""AVSS protocols against results of the published code."""

from __future__ import annotations

import numpy as np
import pytest

from avsbench_harness.scoring import score_semantic
from avsbench_harness.scoring.counts import count_labels
from avsbench_harness.scoring.semantic import ClassFrames, binary_j, frame_miou

CASES = [
    "v2_many", "v2_prediction_only", "v2_gt_only", "v1m_two", "v1s_one", "v2_perfect", "v1m_all_background",
    "v2_soft_scores", "near_ties",
]  # fmt: skip
#: Frames that count -> protocol.
PROTOCOLS = {"real_frames_only": "avss-combo", "padded_to_10": "avss-avsbench"}
CLOSE = {"rel": 1e-6, "abs": 1e-6}


def test_cases_match_the_golden_file(golden):
    assert golden["meta"]["avss_order"] == CASES


def padded(avss_case, names):
    """Labels and truth (N,10,H,W) and valid (N,10); padded frames contain noise, which must be ignored."""
    rng = np.random.default_rng(0)
    labels, truth = rng.integers(0, 71, (2, len(names), 10, 224, 224)).astype(np.uint8)
    valid = np.zeros((len(names), 10), bool)
    for i, name in enumerate(names):
        case = avss_case(name)
        t = len(case.truth)
        labels[i, :t], truth[i, :t], valid[i, :t] = case.labels, case.truth, True
    return labels, truth, valid


def dense(sparse) -> np.ndarray:
    values = np.zeros(71)
    for cls, value in sparse.items():
        values[int(cls)] = value
    return values


def check(scores, expected) -> None:
    metrics = scores.metrics
    assert metrics["mIoU"] == pytest.approx(expected["mIoU"], **CLOSE)
    assert metrics["F"] == pytest.approx(expected["F"], **CLOSE)
    assert metrics["mIoU_noBg"] == pytest.approx(expected["mIoU_noBg_published"], **CLOSE)
    assert metrics["F_noBg"] == pytest.approx(expected["F_noBg_published"], **CLOSE)
    assert metrics["mIoU_no_background"] == pytest.approx(
        expected["derived_without_class0"]["mIoU_over_70"], **CLOSE
    )
    assert metrics["F_no_background"] == pytest.approx(
        expected["derived_without_class0"]["F_over_70"], **CLOSE
    )
    assert metrics["classes_seen"] == expected["classes_seen"]
    assert metrics["mIoU_seen"] == pytest.approx(expected["mIoU_over_seen"], **CLOSE)
    assert metrics["F_seen"] == pytest.approx(expected["F_over_seen"], **CLOSE)
    sums = scores.tally.sums.sum(axis=0).reshape(3, 71)
    for got, name in zip(sums, ("iou_sum", "f_sum", "cls_count"), strict=True):
        assert got == pytest.approx(dense(expected[name]), **CLOSE)


@pytest.mark.parametrize("frames", PROTOCOLS)
@pytest.mark.parametrize("name", CASES)
def test_one_clip(golden, avss_case, name, frames):
    expected = golden["avss"]["cases"][name][frames]
    case = avss_case(name)
    scores = score_semantic(case.labels[None], case.truth[None], protocol=PROTOCOLS[frames])
    check(scores, expected)
    extra = len(expected["frame_miou"]) - len(case.truth)
    counts = count_labels(case.labels, case.truth)
    got = [*frame_miou(ClassFrames.of(counts)), *[1.0] * extra]
    want = [np.nan if value is None else value for value in expected["frame_miou"]]
    assert got == pytest.approx(want, nan_ok=True, **CLOSE)
    # Padded frames have no pixel of the last class, which is taken for the background, so J is 1.
    binary = np.mean([*binary_j(counts), *[1.0] * extra])
    assert binary == pytest.approx(expected["binary_mIoU_lastclass_as_background"], **CLOSE)


@pytest.mark.parametrize(
    ("key", "protocol", "omitted"),
    [
        ("AVSBench_AVSegFormer_padded10_batch1", "avss-avsbench", ["near_ties"]),
        ("AVSBench_AVSegFormer_padded10_batch4", "avss-avsbench", ["near_ties"]),
        ("COMBO_real_frames_batch1", "avss-combo", ["near_ties"]),
        ("label_clips_only_padded10_batch1", "avss-avsbench", ["near_ties", "v2_soft_scores"]),
        ("label_clips_only_real_frames_batch1", "avss-combo", ["near_ties", "v2_soft_scores"]),
    ],
)
def test_all_clips(golden, avss_case, key, protocol, omitted):
    expected = golden["avss"]["aggregate"][key]
    arrays = padded(avss_case, [name for name in CASES if name not in omitted])
    scores = score_semantic(*arrays, protocol=protocol)
    check(scores, expected)
    for metric, reported in {"mIoU": "mIoU", "F": "f_score"}.items():
        if "reported_rounded" in expected:
            assert scores.metrics[f"{metric}_reported"] == pytest.approx(
                expected["reported_rounded"][reported], abs=1e-9
            )


def test_canonical_is_combo_in_float64(golden, avss_case):
    expected = golden["avss"]["aggregate"]["COMBO_real_frames_batch1"]
    scores = score_semantic(*padded(avss_case, [name for name in CASES if name != "near_ties"]))
    assert scores.protocol == "semantic/1"
    assert scores.metrics["mIoU"] == pytest.approx(expected["mIoU"], **CLOSE)
    assert scores.metrics["F"] == pytest.approx(expected["F"], **CLOSE)
    without = expected["derived_without_class0"]
    assert scores.metrics["mIoU_no_background"] == pytest.approx(without["mIoU_over_70"], **CLOSE)
    assert "mIoU_noBg" not in scores.metrics
    table = scores.per_class
    assert table["name"].to_list()[:2] == ["background", "accordion"]
    assert table["name"].to_list()[-1] == "woman"
    assert table["IoU"].mean() == pytest.approx(scores.metrics["mIoU"])
    assert table["frames"].to_list() == dense(expected["cls_count"]).astype(int).tolist()


def test_confusion_by_definition(avss_case):
    labels, truth, valid = padded(avss_case, ["v2_many", "v1s_one"])
    p, g = labels[valid].ravel().astype(int), truth[valid].ravel().astype(int)
    matrix = np.bincount(g * 71 + p, minlength=71 * 71).reshape(71, 71)
    union = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    iou = matrix.diagonal()[union > 0] / union[union > 0]
    metrics = score_semantic(labels, truth, valid, protocol="confusion").metrics
    assert metrics["mIoU"] == pytest.approx(iou.mean())
    assert metrics["mIoU_no_background"] == pytest.approx(iou[1:].mean())
    assert metrics["pixel_accuracy"] == pytest.approx((p == g).mean())
