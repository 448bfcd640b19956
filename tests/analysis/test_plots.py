"""Plots of results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avsbench_harness.analysis import plots
from avsbench_harness.analysis.token_projection import Point
from avsbench_harness.errors import UsageError


def test_rows_that_were_not_run_are_shown_as_missing() -> None:
    figure = plots.ablation_bars(["full", "without"], [0.8, np.nan], [None, (np.nan, np.nan)], "J")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["80.0", "n/a (not run)"]
    figure = plots.robustness_bars({"a": {"clean": 0.5, "noise": 0.4}, "b": {"clean": 0.6}}, "J")
    assert [text.get_text() for text in figure.axes[0].texts] == ["50.0", "60.0", "40.0", "n/a"]
    assert [text.get_text() for text in figure.legends[0].texts] == ["clean", "noise"]


def test_training_curves_show_the_moving_average() -> None:
    lines = [{"step": step, "loss": float(step % 2)} for step in range(1, 401)] + [
        {"step": 400, "val": {"J": 0.5}}
    ]
    left, right = plots.training_curves(lines, "J").axes
    _, average = left.lines
    assert len(average.get_xdata()) == 391  # windows of 10 steps
    assert np.allclose(average.get_ydata(), 0.5)
    assert right.get_ylabel() == "val J (%)"
    assert list(right.lines[0].get_ydata()) == [50]


@pytest.mark.parametrize("form", plots.FORMATS)
def test_equal_plots_give_equal_files(tmp_path: Path, form: str) -> None:
    curve = np.linspace(0.2, 0.9, 255)
    for name in ("one", "two"):
        plots.save(plots.threshold_curves({"a": curve, "b": curve / 2}), tmp_path / f"{name}.{form}")
    assert (tmp_path / f"one.{form}").read_bytes() == (tmp_path / f"two.{form}").read_bytes()


def test_unknown_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Unknown plot format 'gif'"):
        plots.save(plots.new_figure(), tmp_path / "a.gif")


def test_token_labels_have_different_colours(tmp_path: Path) -> None:
    points = [
        Point(clip, 0, classes, len(classes) > 1, x, -x)
        for clip, classes, x in (("a", ("man",), 0.0), ("b", ("guitar",), 1.0), ("c", ("guitar", "man"), 2.0))
    ]
    path = tmp_path / "new" / "tokens.png"
    plots.save(plots.token_scatter(points, "title [brackets]"), path, dots_per_inch=150)
    with Image.open(path) as image:
        assert image.format == "PNG"
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24)}
    assert {(31, 119, 180), (255, 127, 14), (44, 160, 44)} <= colours
