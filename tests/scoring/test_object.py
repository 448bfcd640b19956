"""S4 and MS3 protocols against results of the published code."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from avsbench_harness.scoring import encode, score_object
from avsbench_harness.scoring.object import resize_nearest
from avsbench_harness.submission.codes import THRESHOLDS

CASES = [
    "typical_a", "typical_b", "some_empty", "all_empty", "all_empty_clean", "full_frame", "below_half",
    "zero_logits", "huge_logits", "constant_positive", "perfect", "inverted", "mixed_frames", "half_edges",
    "continuous_a", "continuous_b",
]  # fmt: skip


def tolerance(case) -> float:
    return 1e-6 if case["exact"] else 2e-5


def stacked(object_case, names):
    cases = [object_case(name) for name in names]
    return cases, encode(np.stack([case.prob for case in cases])), np.stack([case.masks for case in cases])


def test_cases_match_the_golden_file(golden):
    assert golden["meta"]["object_order"] == CASES


@pytest.mark.parametrize("name", CASES)
def test_one_clip_per_batch(golden, object_case, name):
    expected = golden["object"]["cases"][name]
    _, codes, masks = stacked(object_case, [name])
    close = {"rel": 0, "abs": tolerance(expected)}
    for protocol in ("avsbench", "catr"):
        scores = score_object(codes, masks, protocol)
        assert scores.metrics == pytest.approx({m: expected["avsbench"][m] for m in "JF"}, **close)
    fpr = score_object(codes, masks, "robust-fpr").metrics["FPR"]
    assert fpr == pytest.approx(expected["robust_FPR"]["clip"], **close)


@pytest.mark.parametrize("name", CASES)
def test_one_frame_per_batch(golden, object_case, name):
    expected = golden["object"]["cases"][name]
    _, codes, masks = stacked(object_case, [name])
    frames = score_object(codes[0][:, None], masks[0][:, None], "robust-fpr").per_clip
    close = {"rel": 0, "abs": tolerance(expected)}
    for metric in "JF":
        assert frames[metric].to_list() == pytest.approx(expected["avsbench"][f"{metric}_frames"], **close)
    assert frames["FPR"].to_list() == pytest.approx(expected["robust_FPR"]["frames"], **close)


@pytest.mark.parametrize("recipe", ["prob", "logit"])
@pytest.mark.parametrize("name", CASES)
def test_second_softmax(golden, object_case, name, recipe):
    expected = golden["object"]["cases"][name]
    case = object_case(name)
    metrics = score_object(case.scores(recipe)[None], case.masks[None], "combo").metrics
    for metric in "JF":
        assert metrics[metric] == pytest.approx(
            expected[f"combo_{recipe}"][metric], rel=0, abs=tolerance(expected)
        )


@pytest.mark.parametrize("batch", [1, 2, 4, 5])
@pytest.mark.parametrize("chosen", ["all", "exact_only"])
def test_batches(golden, object_case, chosen, batch):
    names = [name for name in CASES if chosen == "all" or golden["object"]["cases"][name]["exact"]]
    expected = golden["object"]["aggregate"][chosen][f"batch_size_{batch}"]
    close = {"rel": 0, "abs": 1e-6 if chosen == "exact_only" else 2e-5}
    cases, codes, masks = stacked(object_case, names)
    scores = score_object(codes, masks, "robust-fpr", batch=batch)
    assert scores.metrics["FPR"] == pytest.approx(expected["robust_FPR"], **close)
    assert scores.tally.sums[:, 1:] == pytest.approx(
        np.array([[row["J"], row["F"], row["FPR"]] for row in expected["batches"]]), **close
    )
    assert score_object(codes, masks, "avsbench", batch=batch).metrics == pytest.approx(
        expected["avsbench"], **close
    )
    for recipe in ("prob", "logit"):
        two = np.stack([case.scores(recipe) for case in cases])
        metrics = score_object(two, masks, "combo", batch=batch).metrics
        want = expected[f"combo_{recipe}"]
        for metric, reported in (("J", "mIoU"), ("F", "f_score")):
            assert metrics[metric] == pytest.approx(want[metric], **close)
            assert metrics[f"{metric}_reported"] == pytest.approx(
                want["reported_rounded"][reported], abs=1e-9
            )


def test_canonical_is_avsbench_of_single_clips(golden, object_case):
    cases = golden["object"]["cases"]
    _, codes, masks = stacked(object_case, CASES)
    scores = score_object(codes, masks)
    table = scores.per_clip.set_index("clip")
    with_object = [i for i, name in enumerate(CASES) if any(cases[name]["gt_pixels"])]
    f = []
    for i, name in enumerate(CASES):
        close = {"rel": 0, "abs": tolerance(cases[name])}
        row = table.loc[str(i)]
        assert row["J"] == pytest.approx(cases[name]["avsbench"]["J"], **close)
        if i in with_object:
            assert row["F"] == pytest.approx(cases[name]["avsbench"]["F"], **close)
            f.append(cases[name]["avsbench"]["F"])
        else:
            assert np.isnan(row["F"])
    assert scores.metrics["F"] == pytest.approx(np.mean(f), abs=2e-5)
    assert scores.metrics["J"] == pytest.approx(np.mean([cases[n]["avsbench"]["J"] for n in CASES]), abs=2e-5)


def test_further_metrics_of_object_1_by_definition(object_case):
    names = ["typical_a", "some_empty", "all_empty", "mixed_frames"]
    cases, codes, masks = stacked(object_case, names)
    metrics = score_object(codes, masks).metrics

    def f_beta(b, g):
        both = (b & g).sum()
        return 1.3 * both / (0.3 * g.sum() + b.sum()) if both else 0.0

    j, area, halves, curves = [], [], [], []
    for case in cases:
        filled = [t for t in range(5) if case.masks[t].any()]
        for t in range(5):
            b, g = case.prob[t] > 0.5, case.masks[t] > 0
            (j if t in filled else area).append((b & g).sum() / (b | g).sum() if t in filled else b.mean())
        if filled:
            halves.append(np.mean([f_beta(case.prob[t] > 0.5, case.masks[t] > 0) for t in filled]))
            curves.append(
                [np.mean([f_beta(case.prob[t] >= i, case.masks[t] > 0) for t in filled]) for i in THRESHOLDS]
            )
    curve = np.mean(curves, axis=0)
    assert metrics["J_object"] == pytest.approx(np.mean(j), abs=1e-12)
    assert metrics["false_positive_area"] == pytest.approx(np.mean(area), abs=1e-12)
    assert metrics["F_half"] == pytest.approx(np.mean(halves), abs=1e-12)
    assert metrics["F_split"] == pytest.approx(curve.max(), abs=1e-12)
    assert metrics["threshold"] == pytest.approx(float(THRESHOLDS[curve.argmax()]))
    assert metrics["F"] == pytest.approx(np.mean(np.max(curves, axis=1)), abs=1e-12)


def test_f_is_undefined_without_objects(object_case):
    _, codes, masks = stacked(object_case, ["all_empty"])
    scores = score_object(codes, masks)
    assert [scores.metrics[m] for m in ("F", "F_half", "F_split", "threshold", "J_object")] == [None] * 5
    assert scores.metrics["false_positive_area"] == pytest.approx(1 - scores.metrics["J"])
    json.dumps(scores.to_json(), allow_nan=False)


def test_avsegformer_enlarges_like_pil(object_case):
    case = object_case("typical_a")

    def enlarged(frames):
        images = (Image.fromarray(frame).resize((512, 512), Image.Resampling.NEAREST) for frame in frames)
        return np.stack([np.array(image) for image in images])

    codes = encode(case.prob)
    assert np.array_equal(resize_nearest(codes, 512), enlarged(codes))
    two = np.stack([codes, codes[::-1]]), np.stack([case.masks, case.masks[::-1]])
    ours = score_object(*two, "avsegformer")
    theirs = score_object(*(np.stack([enlarged(clip) for clip in part]) for part in two), "avsbench", batch=2)
    assert ours.metrics == theirs.metrics
    assert ours.metrics != score_object(*two, "avsbench", batch=2).metrics


def test_avsegformer_accepts_predictions_of_512(object_case):
    case = object_case("typical_b")
    codes = encode(case.prob)[None]
    large = resize_nearest(codes[0], 512)[None]
    assert score_object(large, case.masks[None], "avsegformer").metrics == (
        score_object(codes, case.masks[None], "avsegformer").metrics
    )
    with pytest.raises(ValueError, match="predictions have shape"):
        score_object(large, case.masks[None], "avsbench")


def test_confusion_by_definition(object_case):
    cases, codes, masks = stacked(object_case, ["typical_a", "all_empty"])
    b, g = np.stack([case.prob for case in cases]) > 0.5, masks > 0
    metrics = score_object(codes, masks, "confusion").metrics
    assert metrics["IoU_object"] == pytest.approx((b & g).sum() / (b | g).sum())
    assert metrics["IoU_background"] == pytest.approx((~b & ~g).sum() / (~b | ~g).sum())
    assert metrics["mIoU"] == pytest.approx((metrics["IoU_object"] + metrics["IoU_background"]) / 2)


@pytest.mark.parametrize("name", ["car-shadow", "libby"])
def test_avsbench_on_real_masks(davis_sequence, name):
    sequence = davis_sequence(name)
    expected = sequence.expected["avsbench_224"]
    predicted, truth = sequence.at_224()
    with np.errstate(over="ignore"):
        prob = 1 / (1 + np.exp(np.where(predicted > 0, -4, 4).astype(np.float32)))
    codes = encode(prob)
    whole = score_object(codes[None], truth[None], "avsbench").metrics
    assert whole["J"] == pytest.approx(expected["one_batch_all_frames"]["miou"], abs=1e-6)
    assert whole["F"] == pytest.approx(expected["one_batch_all_frames"]["F"], abs=1e-6)
    clips = len(codes) // 5
    five = [array[: clips * 5].reshape(clips, 5, 224, 224) for array in (codes, truth)]
    one = score_object(*five, "avsbench")
    assert one.tally.sums[:, 1:3] == pytest.approx(np.array(expected["five_frame_batches"]), abs=1e-6)
    assert one.metrics["F"] == pytest.approx(expected["mean_over_five_frame_batches"]["F"], abs=1e-6)
    assert one.metrics["J"] == pytest.approx(expected["mean_over_five_frame_batches"]["miou"], abs=1e-6)
    four = score_object(*five, "avsbench", batch=4)
    assert four.tally.sums[:, 1:3] == pytest.approx(np.array(expected["batches_of_four_clips"]), abs=1e-6)
    want = expected["mean_over_batches_of_four_clips"]
    assert [four.metrics["J"], four.metrics["F"]] == pytest.approx([want["miou"], want["F"]], abs=1e-6)
