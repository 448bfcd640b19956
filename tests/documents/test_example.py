"""``tests/fixtures/make_example.py`` writes valid example submissions with plausible scores."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from avsbench_harness.scoring import score_submission
from avsbench_harness.submission import check_submission, read_solution, read_submission, write_solution

SCRIPT = Path(__file__).parents[1] / "fixtures" / "make_example.py"


@pytest.fixture
def make_example():
    spec = importlib.util.spec_from_file_location("make_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("task", ["s4", "avss"])
def test_example(make_example, tmp_path, task):
    masks = np.zeros((4, 5, 64, 64), np.uint8)
    for i, clip in enumerate(masks):
        clip[:, 8 * i : 30 + 8 * i, 20:50] = 1 if task == "s4" else i + 3
    clips = [(f"clip{i}", clip, "x") for i, clip in enumerate(masks)]
    write_solution(tmp_path / "solution.npz", task, "test", clips)
    with read_solution(tmp_path / "solution.npz") as solution:
        for name in ("a.npz", "b.npz"):
            make_example.write_example(solution, tmp_path / name, seed=1)
        assert check_submission(tmp_path / "a.npz", solution) == []
        with read_submission(tmp_path / "a.npz") as submission:
            assert "not a result" in submission.header.note
            metrics = score_submission(submission, solution).metrics
    assert 0.5 < metrics["J" if task == "s4" else "mIoU_seen"] < 0.99
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
