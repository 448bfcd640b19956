"""Geometry of the charts."""

from __future__ import annotations

import numpy as np
import pytest

from avsbench_harness.leaderboard.site.charts import (
    axis,
    histogram,
    nice_ticks,
    smooth,
    thin,
    threshold_chart,
    training_charts,
)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (46.2, 50.1, [47, 48, 49, 50]),
        (0, 0.00105, [0, 0.0005, 0.001]),
        (3, 3, [3]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(expected)


def test_small_values_have_an_exponent() -> None:
    made = axis("learning rate", 0, 0.00105, vertical=True)
    assert [text for _, text in made.ticks] == ["0", "5e-4", "1e-3"]
    assert made.at(0) > made.at(0.001)  # upwards


def test_smoothing_is_a_centred_mean() -> None:
    assert smooth([0, 3, 6, 9], 3) == [1.5, 3, 6, 7.5]
    points = [(float(step), float(step % 2)) for step in range(3000)]
    assert len(thin(points)) == 300
    assert thin(points)[0] == (4.5, 0.5)


def test_histogram_counts_every_clip_once() -> None:
    values = np.array([0.0, 0.04, 0.05, 1.0, 0.999, np.nan])
    chart = histogram(values, "J")
    assert [bar.text for bar in chart.bars] == [
        "2 clips from 0 to 5 %",
        "1 clips from 5 to 10 %",
        "2 clips from 95 to 100 %",
    ]
    assert "5 clips; the median is 5.0 %" in chart.summary
    assert not histogram(np.array([np.nan]), "J").bars


def test_threshold_chart_shows_both_definitions_of_f() -> None:
    curve = np.full(255, 0.5)
    curve[127] = 0.625
    chart = threshold_chart(curve, 0.7, 0.55)
    split, per_clip = chart.lines
    assert [text for _, _, text in split.marks] == ["F_split 62.5 at 0.50", "F_half 55.0 at 0.5"]
    assert per_clip.name == "best threshold of every clip (F)"
    start, end = per_clip.path.removeprefix("M").split("L")
    assert start.split()[1] == end.split()[1] == f"{chart.y.at(70):g}"


def test_training_charts_leave_out_what_was_not_logged() -> None:
    made = training_charts([(1, 2.0), (2, 1.0)], [(2, 0.5)], [(1, 0.1)], "J", 2)
    assert [chart.y.label for chart in made] == ["loss", "J (%)", "learning rate"]
    assert made[1].lines[0].marks[0][2] == "step 2: 50.0 (selected)"
    assert training_charts([], [], [], "J", None) == []
