"""Inputs of a run's pages."""

from __future__ import annotations

from pathlib import Path

from avsbench_harness.leaderboard.site.run_inputs import _submissions


def test_submissions_of_the_test_split_by_condition(tmp_path: Path) -> None:
    names = ("r-1.npz", "r-1-swapped.npz", "r-1-noise-0db.npz", "r-1-val.npz", "r-1-val-swapped.npz",
             "r-12.npz", "r-1-<b>.npz", "r-1-swapped.txt")  # fmt: skip
    for name in names:
        (tmp_path / name).touch()
    found = _submissions(tmp_path, "r-1")
    assert {name: path.name for name, path in found.items()} == {
        "clean": "r-1.npz",
        "noise-0db": "r-1-noise-0db.npz",
        "swapped": "r-1-swapped.npz",
    }
    assert next(iter(found)) == "clean"
    (tmp_path / "r-1.npz").unlink()
    assert _submissions(tmp_path, "r-1") == {}
