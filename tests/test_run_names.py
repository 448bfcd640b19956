from __future__ import annotations

from pathlib import Path

import pytest

from avsbench_harness.errors import UsageError
from avsbench_harness.run_names import find_run, match_run


@pytest.fixture
def out(tmp_path: Path) -> Path:
    for name in ("ms3-a-s0-11", "ms3-a-s0-12", "ms3-a-s0", "s4-b-s0-13"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "spec.json").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("asked", "found"),
    [("s4", "s4-b-s0-13"), ("ms3-a-s0-12", "ms3-a-s0-12"), ("ms3-a-s0", "ms3-a-s0")],
)
def test_ids_and_unique_prefixes(out: Path, asked: str, found: str) -> None:
    """An id that is also a prefix of others is exact."""
    assert find_run(asked, out) == out / "runs" / found


def test_folders_of_other_places(out: Path, tmp_path: Path) -> None:
    folder = out / "runs" / "s4-b-s0-13"
    assert find_run(str(folder), tmp_path / "elsewhere") == folder


def test_ambiguous_and_unknown_names(out: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find_run("ms3-a-s0-", out)
    assert str(caught.value) == (
        "'ms3-a-s0-' is a prefix of 2 runs: ms3-a-s0-11, ms3-a-s0-12; give more of the name."
    )
    with pytest.raises(UsageError, match="Unknown run 's4-b-s0-14'. Did you mean 's4-b-s0-13'"):
        find_run("s4-b-s0-14", out)
    with pytest.raises(UsageError, match="there are no runs in "):
        find_run("s4", tmp_path / "elsewhere")
    assert match_run("", out) is None
