"""Splits without ground truth."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from avsbench_harness.data.avsbench.layout import open_dataset
from avsbench_harness.data.avsbench.unlabelled import is_labelled, stated_fingerprint, without_masks
from avsbench_harness.errors import UsageError
from avsbench_harness.tasks import S4

ONE = "1" * 64


def test_splits_with_and_without_masks(real_s4: Path, tmp_path: Path) -> None:
    assert is_labelled(open_dataset(real_s4, S4).clips("test"))
    assert not is_labelled(open_dataset(real_s4, S4).clips("train"))  # the first of five frames is annotated
    shutil.copytree(real_s4, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "Single-source" / "s4_data" / "gt_masks" / "test")
    bare = open_dataset(tmp_path / "data", S4)
    assert not is_labelled(bare.clips("test"))
    assert is_labelled(bare.clips("val"))
    assert {clip.masks for clip in without_masks(bare.clips("test"))} == {(None,) * 5}


def test_fingerprints_that_a_data_root_states(real_s4: Path, tmp_path: Path) -> None:
    shutil.copytree(real_s4, tmp_path, dirs_exist_ok=True)
    dataset = open_dataset(tmp_path, S4)
    assert stated_fingerprint(dataset, "test") == ""
    (tmp_path / "solutions.json").write_text(json.dumps({"s4": {"test": ONE}}))
    assert stated_fingerprint(dataset, "test") == ONE
    assert stated_fingerprint(dataset, "val") == ""


@pytest.mark.parametrize("value", [[], {"s4": ONE}, {"s4": {"test": 1}}, {"s4": {"test": "abc"}}])
def test_malformed_fingerprints_are_refused(real_s4: Path, tmp_path: Path, value: object) -> None:
    shutil.copytree(real_s4, tmp_path, dirs_exist_ok=True)
    (tmp_path / "solutions.json").write_text(json.dumps(value))
    with pytest.raises(UsageError, match=r'solutions\.json must be like \{"s4": \{"test"'):
        stated_fingerprint(open_dataset(tmp_path, S4), "test")
