"""Leaderboard tables as CSV and LaTeX."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest

from avsbench_harness.leaderboard.export import to_csv, to_latex
from avsbench_harness.leaderboard.tables import build_tables
from avsbench_harness.results.folder import read_results

from ..results.records import score_clips


def test_csv_and_latex(tmp_path: Path) -> None:
    score_clips(tmp_path, "a", 1, method="a_b&c")
    made = build_tables(read_results(tmp_path).records, read_results(tmp_path))
    frame = pd.read_csv(io.StringIO(to_csv(made)))
    assert list(frame["metric"]) == ["J", "F"]
    assert frame["mean"][0] == pytest.approx(39 / 40)
    latex = to_latex(made)
    assert r"1 & a\_b\&c (released) & pvt & full (preset not available here) & 97.50 & 98.91 \\" in latex
    assert latex.count(r"\begin{tabular}{rlllrr}") == 1
