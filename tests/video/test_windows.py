"""Windows of a video and the times of its predictions."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avsbench_harness.errors import UsageError
from avsbench_harness.video.windows import Timeline


def half(value: float) -> Fraction:
    return Fraction(value).limit_denominator(1000)


def test_one_prediction_per_second_in_its_middle() -> None:
    timeline = Timeline(Fraction(12), 1, 5)
    assert [timeline.time(k) for k in (0, 1, 11)] == [half(0.5), half(1.5), half(11.5)]
    assert timeline.count == 12
    found = [(w.start, w.first, w.seconds, w.padded, w.kept) for w in timeline.windows()]
    assert found == [
        (0, 0, 5, False, (0, 1, 2, 3, 4)),
        (5, 5, 5, False, (0, 1, 2, 3, 4)),
        (10, 10, 2, True, (0, 1)),
    ]


@pytest.mark.parametrize(
    ("seconds", "count"), [(0.1, 1), (0.5, 1), (1, 1), (1.5, 1), (1.6, 2), (5, 5), (5.4, 5), (5.6, 6)]
)
def test_a_rest_shorter_than_half_a_second_has_no_prediction_of_its_own(seconds: float, count: int) -> None:
    assert Timeline(half(seconds), 1, 5).count == count


def test_predictions_are_shown_where_they_are_the_nearest() -> None:
    timeline = Timeline(Fraction(3), 1, 5)
    assert [timeline.shown(k) for k in range(3)] == [(0, 1), (1, 2), (2, 3)]
    assert [timeline.at(half(t)) for t in (0, 0.99, 1, 2.5, 3, 99)] == [0, 0, 1, 2, 2, 2]
    twice = Timeline(Fraction(2), 2, 5)
    assert [twice.time(k) for k in range(twice.count)] == [half(0.5), 1, half(1.5)]
    assert [twice.shown(k) for k in range(3)] == [(0, half(0.75)), (half(0.75), half(1.25)), (half(1.25), 2)]


def test_two_predictions_per_second_shift_the_windows_by_half_a_second() -> None:
    windows = Timeline(Fraction(10), 2, 5).windows()
    assert [(w.start, w.first, w.seconds) for w in windows] == [
        (0, 0, 5), (half(0.5), 1, 5), (half(5.5), 11, 4), (5, 10, 5),
    ]  # fmt: skip


def test_overlapping_windows_keep_the_seconds_with_most_context() -> None:
    windows = Timeline(Fraction(9), 1, 5, 3).windows()
    assert [(int(w.start), w.kept) for w in windows] == [(0, (0, 1, 2, 3)), (2, (2, 3)), (4, (2, 3, 4))]


@given(
    st.fractions(Fraction(1, 30), 70, max_denominator=30),
    st.integers(1, 7),
    st.sampled_from([5, 10]),
    st.integers(0, 9),
)
def test_every_prediction_is_kept_once(seconds: Fraction, fps: int, length: int, overlap: int) -> None:
    timeline = Timeline(seconds, fps, length, min(overlap, length - 1))
    windows = timeline.windows()
    kept = [window.first + second * fps for window in windows for second in window.kept]
    assert sorted(kept) == list(range(timeline.count))
    assert all(window.kept for window in windows)
    assert all(timeline.at(timeline.time(k)) == k for k in range(timeline.count))
    ends = [window.last(fps) for window in windows]
    assert ends == sorted(ends)
    for window in windows:
        assert timeline.time(window.first) == window.start + Fraction(1, 2)
        assert window.padded == (window.seconds < length)


@pytest.mark.parametrize(("fps", "overlap"), [(0, 0), (31, 0), (1, 5), (1, -1)])
def test_values_out_of_range_are_refused(fps: int, overlap: int) -> None:
    with pytest.raises(UsageError, match="--fps must be 1 to 30|--overlap must be 0 to 4 s"):
        Timeline(Fraction(9), fps, 5, overlap)
