"""Masks in the layout of AVSBench and as COCO JSON."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avsbench_harness.data.masks import read_object_mask, read_semantic_mask
from avsbench_harness.tasks import AVSS, MS3, S4, Task
from avsbench_harness.video.export import clip_prefix, mask_file, write_masks
from avsbench_harness.video.mask_store import MaskStore
from avsbench_harness.video.rle import decode_mask
from avsbench_harness.video.windows import Timeline


def test_paths_are_those_of_the_layouts() -> None:
    timeline = Timeline(Fraction(12), 1, 5)
    base = "Single-source/s4_data/gt_masks/test/video/cat_5000_10000"
    assert str(mask_file(S4, "cat", timeline, 6)) == f"{base}/cat_5000_10000_2.png"
    base = "Multi-sources/ms3_data/gt_masks/test/cat_0_5000"
    assert str(mask_file(MS3, "cat", timeline, 4)) == f"{base}/cat_0_5000_5.png"
    twice = Timeline(Fraction(12), 2, 10)
    assert str(mask_file(AVSS, "cat", twice, 3)) == "AVSBench_semantic/v2/cat_500_10500/labels_semantic/1.png"


@pytest.mark.parametrize("task", [S4, MS3, AVSS], ids=lambda task: task.name)
def test_masks_are_read_as_ground_truth(task: Task, tmp_path: Path) -> None:
    timeline, store = Timeline(Fraction(3), 1, task.frames), MaskStore(tmp_path / "store")
    high = 70 if task.semantic else 1
    labels = [np.random.default_rng(k).choice(np.array([0, 1, high], np.uint8), (6, 8)) for k in range(3)]
    labels[1][:] = 0
    for index, one in enumerate(labels):
        store.write(index, one)
    coco = write_masks(tmp_path / "out", task, Path("films/a cat.mp4"), timeline, store)
    read = read_semantic_mask if task.semantic else read_object_mask
    for index, one in enumerate(labels):
        path = tmp_path / "out" / mask_file(task, "a cat", timeline, index)
        assert np.array_equal(read(path), one)
        if task.semantic:
            assert np.array_equal(read(path.parent.parent / "labels_rgb" / path.name), one)
    value = json.loads(coco.read_text())
    assert coco.name == "a cat.coco.json"
    assert len(value["categories"]) == (70 if task.semantic else 1)
    assert [image["seconds"] for image in value["images"]] == [0.5, 1.5, 2.5]
    assert all((tmp_path / "out" / image["file_name"]).is_file() for image in value["images"])
    found = [np.zeros((6, 8), np.uint8) for _ in labels]
    for annotation in value["annotations"]:
        mask = decode_mask(annotation["segmentation"])
        assert annotation["area"] == mask.sum()
        found[annotation["image_id"]][mask] = annotation["category_id"]
    assert all(np.array_equal(one, two) for one, two in zip(found, labels, strict=True))
    numbers = [annotation["id"] for annotation in value["annotations"]]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("a/cat.mp4", "cat"),
        (".hidden", "hidden"),
        ("x:y\n.mkv", "x_y_"),
        ("..mp4", "video"),
        ("k" * 200, "k" * 80),
    ],
)
def test_names_of_files_become_ids_of_clips(name: str, prefix: str) -> None:
    assert clip_prefix(Path(name)) == prefix
