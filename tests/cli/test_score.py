"""``avsb score --record``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path


def test_a_submission_without_a_run_is_recorded_only_on_request(avsb, finished: Path, tmp_path: Path) -> None:
    (submission,) = (finished / "submissions").glob("*.npz")
    away = tmp_path / "away"
    away.mkdir()
    copy = away / "theirs.npz"
    shutil.copy(submission, copy)
    assert avsb("score", copy, "--out", away).code == 0
    assert not (away / "results").exists()
    scored = avsb("score", copy, "--out", away, "--record")
    assert scored.code == 0
    (record,) = (away / "results").glob("*.json")
    assert f"written: {record}" in scored.err
    assert json.loads(record.read_text())["spec"] is None
    assert avsb("results", "validate", "--results", away / "results").code == 0
    assert record.stem in avsb("leaderboard", "--results", away / "results").out
