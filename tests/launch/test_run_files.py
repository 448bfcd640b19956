from __future__ import annotations

from pathlib import Path

import pytest

from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.launch.run_files import find_record, find_submission


@pytest.fixture
def out(tmp_path: Path) -> Path:
    for name in ("s4-a", "s4-b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "spec.json").touch()
    for name in ("submissions/s4-a.npz", "results/s4-a.json", "results/s4-a-val.json", "results/ms3-c.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_submissions_of_runs(out: Path) -> None:
    file = out / "submissions" / "s4-a.npz"
    assert find_submission("s4-a", out) == find_submission(str(file)) == file
    assert find_submission(str(out / "runs" / "s4-a")) == file
    assert find_submission("gone.npz", out) == Path("gone.npz")  # reported when it is read
    with pytest.raises(MissingDataError, match="The run s4-b has no submission at .*avsb predict s4-b"):
        find_submission("s4-b", out)
    with pytest.raises(UsageError, match="'s4' is a prefix of 2 runs: s4-a, s4-b"):
        find_submission("s4", out)


def test_records_of_runs(out: Path) -> None:
    results = out / "results"
    assert find_record("ms3", results) == results / "ms3-c.json"
    assert find_record("s4-a", results) == results / "s4-a.json"
    with pytest.raises(UsageError, match="'s4' is a prefix of 2 records: s4-a, s4-a-val"):
        find_record("s4", results)
    assert find_record("x.json", results) == Path("x.json")
