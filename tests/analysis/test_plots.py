"""Plots of results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avsbench_harness.analysis import plots
from avsbench_harness.analysis.token_projection import Point
from avsbench_harness.errors import UsageError


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
