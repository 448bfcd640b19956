"""Cached solutions."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avsbench_harness.data.avsbench.layout import Dataset, open_dataset
from avsbench_harness.data.cache.eviction import collections
from avsbench_harness.data.synth import write_synthetic
from avsbench_harness.engine import solutions
from avsbench_harness.engine.solutions import find_solution, pack_solution, solution_file
from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.submission import read_solution
from avsbench_harness.tasks import AVSS, S4


@pytest.fixture
def dataset(real_s4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    return open_dataset(real_s4, S4)


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The splits that were packed."""
    found: list[str] = []
    real = solutions.pack_solution

    def pack(dataset: Dataset, split: str, path: Path) -> str:
        found.append(split)
        return real(dataset, split, path)

    monkeypatch.setattr(solutions, "pack_solution", pack)
    return found


def test_a_solution_is_packed_once(dataset: Dataset, packed: list[str], tmp_path: Path) -> None:
    path = solution_file(dataset, "test")
    assert solution_file(dataset, "test") == path
    assert packed == ["test"]
    own = tmp_path / "own.npz"
    fingerprint = pack_solution(dataset, "test", own)
    with read_solution(path) as solution, read_solution(own) as expected:
        assert solution.fingerprint == expected.fingerprint == fingerprint
        for (clip, masks), (other, others) in zip(solution, expected, strict=True):
            assert clip == other
            assert (masks == others).all()
    assert find_solution(fingerprint) == path
    assert find_solution("0" * 64) is None


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def replace(path: Path) -> None:
    path.write_bytes(random.Random(0).randbytes(path.stat().st_size))


@pytest.mark.parametrize("file", ["data.bin", "index.bin"])
@pytest.mark.parametrize("damage", [flip, truncate, empty, zero, replace, Path.unlink])
def test_a_damaged_solution_is_rebuilt(
    dataset: Dataset, packed: list[str], damage: Callable[[Path], None], file: str
) -> None:
    path = solution_file(dataset, "val")
    whole = path.read_bytes()
    with read_solution(path) as solution:
        fingerprint = solution.fingerprint
    damage(path.with_name(file))
    assert find_solution(fingerprint) is None
    assert solution_file(dataset, "val") == path
    assert packed == ["val", "val"]
    assert find_solution(fingerprint) == path
    assert len(path.read_bytes()) == len(whole)
    with read_solution(path) as solution:
        assert solution.content_faults() == []
    solution_file(dataset, "val")
    assert packed == ["val", "val"]


def test_a_solution_in_use_is_held(dataset: Dataset) -> None:
    solution_file(dataset, "val")
    assert [(collection.kind, collection.in_use) for collection in collections()] == [("solutions", True)]


def test_a_split_without_ground_truth_is_refused_and_not_cached(dataset: Dataset) -> None:
    with pytest.raises(MissingDataError, match="has ground truth for 1 of 5 frames"):
        solution_file(dataset, "train")
    with pytest.raises(MissingDataError, match="has ground truth for 1 of 5 frames"):
        solution_file(dataset, "train")


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_masks_of_other_classes_than_listed(tmp_path: Path, monkeypatch, caplog, wrong: int) -> None:
    """Labels counted from 1, in none, one and all of two clips."""
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    write_synthetic(tmp_path / "data", AVSS, (1, 1, 2), 0, kinds=3)
    for folder in (tmp_path / "data").rglob("labels_rgb"):
        shutil.rmtree(folder)
    data = open_dataset(tmp_path / "data", AVSS)
    for clip in data.clips("test")[:wrong]:
        for mask in clip.masks:
            assert mask is not None
            Image.fromarray(np.asarray(Image.open(mask)) + np.uint8(1)).save(mask)
    if wrong == 2:
        with pytest.raises(UsageError, match="masks of 2 of 2 test clips .* labels counted from 1"):
            solution_file(data, "test")
        assert not list((tmp_path / "cache").rglob("*.npz"))
    else:
        solution_file(data, "test")
        assert ["masks of 1 of 2 test clips" in line for line in caplog.messages] == [True] * wrong
