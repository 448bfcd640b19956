"""Metrics of hand-made predictions, computed again in a few lines."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from avsbench_harness.robustness.clip_values import ClassAreas, ClipValues, clip_values
from avsbench_harness.robustness.conditions import get_condition
from avsbench_harness.robustness.metrics import (
    class_fpr,
    condition_metrics,
    definitions,
    mean_estimate,
    pia_curve,
    snr_area,
)
from avsbench_harness.submission import (
    Header,
    SubmissionWriter,
    read_solution,
    read_submission,
    write_solution,
)

NAN = float("nan")
#: Predicted areas of two clips, one of two and one of four frames.
AREAS = np.array([[0.5, 0.0, NAN, NAN], [0.04, 1.0, 0.25, 0.11]])


def values(areas: np.ndarray = AREAS, overlaps: tuple[float, ...] = (0.25, 1.0)) -> ClipValues:
    return ClipValues(areas, np.array(overlaps))


def test_rates_under_silence() -> None:
    found = condition_metrics(get_condition("silence"), values())
    first, second = 0.25, 0.35
    assert set(found) == {"fpr/1", "s/1", "auc_n/1", "sensitivity/1"}
    assert found["fpr/1"].value == pytest.approx((first + second) / 2, abs=1e-15)
    assert found["s/1"].value == pytest.approx((first**0.5 + second**0.5) / 2, abs=1e-15)
    assert found["sensitivity/1"].value == pytest.approx(0.375, abs=1e-15)
    area = 0.0
    for frames in ([0.5, 0.0], [0.04, 1.0, 0.25, 0.11]):
        shares = [sum(one < k / 20 for one in frames) / len(frames) for k in range(21)]
        area += sum((a + b) / 2 / 20 for a, b in itertools.pairwise(shares)) / 2
    assert found["auc_n/1"].value == pytest.approx(area, abs=1e-12)
    curve = pia_curve(values())
    assert len(curve) == 21
    assert curve[0] == 0
    assert curve[1] == (1 / 2 + 1 / 4) / 2  # below 0.05
    assert curve[20] == (1 + 3 / 4) / 2  # a full frame is never below


def test_conditions_have_the_metrics_that_make_sense() -> None:
    assert condition_metrics(get_condition("clean"), values()) == {}
    assert set(condition_metrics(get_condition("mixed@0"), values())) == {"sensitivity/1"}
    assert set(condition_metrics(get_condition("swapped"), values())) == {
        "fpr/1", "s/1", "auc_n/1", "sensitivity/1",
    }  # fmt: skip


def test_empty_and_full_masks() -> None:
    empty = condition_metrics(get_condition("silence"), values(np.zeros((2, 5))))
    full = condition_metrics(get_condition("silence"), values(np.ones((2, 5))))
    assert [empty[name].value for name in ("fpr/1", "s/1")] == [0, 0]
    assert empty["auc_n/1"].value == pytest.approx(0.975)
    assert [full[name].value for name in ("fpr/1", "s/1", "auc_n/1")] == [1, 1, 0]
    assert empty["fpr/1"].interval == (0, 0)


def test_intervals_are_those_of_resampled_clips() -> None:
    clips = np.random.default_rng(3).random(30)
    draws = np.random.default_rng(0).integers(0, 30, (2000, 30))
    low, high = np.quantile(clips[draws].mean(axis=1), [0.025, 0.975])
    found = mean_estimate(clips)
    assert found.value == pytest.approx(clips.mean())
    assert found.interval == pytest.approx((low, high), abs=1e-12)
    assert mean_estimate(clips[:1]).interval is None


def test_class_rates_are_over_the_pixels_of_other_classes() -> None:
    wrong, truth = np.zeros((2, 71)), np.zeros((2, 71))
    wrong[:, 3] = 0.5, 0.25  # frames
    truth[:, 3] = 1.0, 0.0
    frames = np.array([5.0, 10.0])
    rates = class_fpr(ClassAreas(wrong, truth, frames))
    assert rates[3] == pytest.approx(0.75 / 14)
    assert rates.sum() == rates[3]
    found = condition_metrics(
        get_condition("clean"), ClipValues(AREAS, np.ones(2), ClassAreas(wrong, truth, frames))
    )
    assert found["class_fpr/1"].value == pytest.approx(0.75 / 14 / 70)
    assert found["class_fpr/1"].interval == pytest.approx((0.25 / 10 / 70, 0.5 / 4 / 70))


def test_the_area_over_the_ratio_is_a_trapezoid() -> None:
    j = {20: [0.9, 0.7], -10: [0.1, 0.3], 0: [0.4, 0.6]}
    tables = {
        snr: (np.array([[1.0, one] for one in column]), lambda sums: {"J": sums[..., 1] / sums[..., 0]})
        for snr, column in j.items()
    }
    curve, area = snr_area(tables, "J")
    assert curve == pytest.approx([0.2, 0.5, 0.8])
    assert area.value == pytest.approx((10 * 0.35 + 20 * 0.65) / 30)
    ends = sorted((10 * (j[-10][k] + j[0][k]) / 2 + 20 * (j[0][k] + j[20][k]) / 2) / 30 for k in (0, 1))
    assert area.interval == pytest.approx(tuple(ends))
    assert snr_area({0: tables[0]}, "J")[1].value is None


@pytest.mark.parametrize("task", ["ms3", "avss"])
def test_values_of_submissions(tmp_path: Path, task: str) -> None:
    """Areas, overlaps and class areas of two clips under two conditions, pixel by pixel."""
    draw = np.random.default_rng(1)
    semantic = task == "avss"
    top = 4 if semantic else 2
    truth = {
        name: draw.integers(0, top, (frames, 4, 4)).astype(np.uint8) for name, frames in (("a", 5), ("b", 3))
    }
    predicted = {
        condition: {
            name: draw.integers(0, top, masks.shape).astype(np.uint8) for name, masks in truth.items()
        }
        for condition in ("clean", "silence")
    }
    write_solution(
        tmp_path / "truth.npz", task, "test", [(name, masks, "v1s" if semantic else task) for name, masks in
        truth.items()], dataset="custom", synthetic=False, size=(4, 4),
    )  # fmt: skip
    for condition, clips in predicted.items():
        header = Header(task, "test", "0" * 64, "m", size=(4, 4))
        with SubmissionWriter(tmp_path / f"{condition}.npz", header) as writer:
            for name, masks in clips.items():
                writer.add(name, masks if semantic else masks * np.uint8(255))
    with (
        read_solution(tmp_path / "truth.npz") as solution,
        read_submission(tmp_path / "clean.npz") as clean,
        read_submission(tmp_path / "silence.npz") as silence,
    ):
        found = clip_values({"clean": clean, "silence": silence}, clean, solution, ["a", "b"])
    assert found["clean"].overlaps.tolist() == [1, 1]
    for row, name in enumerate(("a", "b")):
        one, two = predicted["clean"][name], predicted["silence"][name]
        frames = len(one)
        for condition, masks in (("clean", one), ("silence", two)):
            areas = found[condition].areas[row]
            np.testing.assert_allclose(areas[:frames], [(frame > 0).sum() / 16 for frame in masks])
            assert np.isnan(areas[frames:]).all()
        shares = []
        for p, q in zip(one, two, strict=True):
            union = ((p > 0) | (q > 0)).sum()
            shares.append(((p > 0) & (p == q)).sum() / union if union else 1)
        assert found["silence"].overlaps[row] == pytest.approx(np.mean(shares))
        classes = found["silence"].classes
        assert (classes is not None) == semantic
        for label in range(4) if classes is not None else ():
            wrong = ((two == label) & (truth[name] != label)).sum() / 16
            assert classes.wrong[row, label] == pytest.approx(wrong)
            assert classes.truth[row, label] == pytest.approx((truth[name] == label).sum() / 16)


def test_every_metric_states_formula_unit_and_source() -> None:
    texts = definitions()
    assert set(texts) == {
        "fpr/1", "s/1", "auc_n/1", "sensitivity/1", "class_fpr/1", "snr_area/1",
    }  # fmt: skip
    for text in texts.values():
        for part in ("Formula: ", "Source: ", "in [0, "):
            assert part in text
