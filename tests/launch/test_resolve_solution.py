"""The ground truth of a submission, if none is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.engine.solutions import solution_file
from avsbench_harness.errors import MissingDataError
from avsbench_harness.launch import datasets
from avsbench_harness.launch.resolve_solution import ground_truth
from avsbench_harness.submission import Header, read_solution
from avsbench_harness.tasks import S4


@pytest.fixture
def synthetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(datasets, "SYNTHETIC_CLIPS", (1, 1, 1))
    return datasets.generated_dataset("synthetic", S4)


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_damaged_solution_of_the_default_synthetic_set_is_rebuilt(synthetic: Dataset, split: str) -> None:
    path = solution_file(synthetic, split)
    with read_solution(path) as solution:
        header = Header("s4", split, solution.fingerprint, "a method")
    assert ground_truth(header, None, None) == path
    path.write_bytes(b"")
    assert ground_truth(header, None, None) == path
    with read_solution(path) as solution:
        assert solution.fingerprint == header.solution


def test_a_solution_of_other_data_is_asked_for(synthetic: Dataset) -> None:
    with pytest.raises(MissingDataError, match="pass --solution FILE, or --data ROOT"):
        ground_truth(Header("s4", "test", "0" * 64, "a method"), None, None)
