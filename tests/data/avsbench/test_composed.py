"""The description of a composed data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avsbench_harness.data.avsbench.composed import is_name, read_composed
from avsbench_harness.data.errors import BadFileError

FACTS = {
    "format": 1,
    "name": "lab 1",
    "version": 1,
    "seed": 0,
    "clips": {"train": 2, "val": 1, "test": 1},
    "content": {"s4": {"train": "0" * 64}},
}


def test_the_first_folder_with_a_description_counts(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    assert read_composed(tmp_path / "inner", tmp_path) is None
    (tmp_path / "composed.json").write_text(json.dumps(FACTS))
    found = read_composed(tmp_path / "inner", tmp_path)
    assert found is not None
    assert (found.name, found.clips) == ("lab 1", {"train": 2, "val": 1, "test": 1})


@pytest.mark.parametrize(
    "change",
    [
        {"name": "avsbench"},
        {"name": "Synthetic"},
        {"name": "\x1b[31m"},
        {"name": "x" * 61},
        {"name": None},
        {"format": 2},
        {"seed": -1},
        {"clips": {"train": -1}},
        {"clips": {"train": 1e9}},
        {"content": {"s4": {"train": "short"}}},
        {"more": 1},
    ],
    ids=str,
)
def test_malformed_descriptions_are_refused(tmp_path: Path, change: dict) -> None:
    (tmp_path / "composed.json").write_text(json.dumps({**FACTS, **change}))
    with pytest.raises(BadFileError, match=r"composed\.json is not a description"):
        read_composed(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 5000])
def test_files_that_are_no_objects_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "composed.json").write_text(content)
    with pytest.raises(BadFileError, match=r"composed\.json"):
        read_composed(tmp_path)


def test_names() -> None:
    assert all(map(is_name, ("lab", "AVS-Mini v1", "a.b_c 2", "0")))
    assert not any(map(is_name, ("", " lab", "custom", "a/b", "ü", "a\n", "-x")))
