from __future__ import annotations

import logging
from pathlib import Path

import pytest
from PIL import Image

from avsbench_harness.data.avsbench.layout import Dataset, open_dataset
from avsbench_harness.data.avsbench.processed import processed_clips, processed_fingerprint
from avsbench_harness.errors import UsageError
from avsbench_harness.tasks import AVSS, S4, SPLITS


def preprocess(dataset: Dataset) -> list[Path]:
    """Save every frame again as COMBO's script does: 224x224, in ``processed_frames`` beside ``frames``."""
    made = []
    for split in SPLITS:
        for clip in dataset.clips(split):
            for number, frame in enumerate(clip.frames):
                path = dataset.folder / clip.subset / clip.id / "processed_frames" / f"{number}.jpg"
                path.parent.mkdir(exist_ok=True)
                Image.open(frame).convert("RGB").resize((224, 224)).save(path)
                made.append(path)
    return made


def test_processed_frames_lie_beside_the_frames(tree) -> None:
    tree.avss()
    dataset = open_dataset(tree.root, AVSS)
    made = preprocess(dataset)
    found = [clip for split in SPLITS for clip in processed_clips(dataset.clips(split))]
    assert [path for clip in found for path in clip.frames] == made
    assert [clip.masks for clip in found] == [clip.masks for split in SPLITS for clip in dataset.clips(split)]


def test_the_fingerprint_covers_every_file(tree, caplog: pytest.LogCaptureFixture) -> None:
    tree.avss()
    dataset = open_dataset(tree.root, AVSS)
    with caplog.at_level(logging.INFO):
        assert processed_fingerprint(dataset) is None
    assert "The original frames are read instead of processed_frames: " in caplog.text
    made = preprocess(dataset)
    original, whole = dataset.fingerprint(), processed_fingerprint(dataset)
    assert whole is not None
    assert len(whole) == 64
    assert processed_fingerprint(dataset) == whole
    Image.new("RGB", (224, 224), (1, 200, 3)).save(made[-1])
    assert processed_fingerprint(dataset) not in (None, whole)
    assert dataset.fingerprint() == original
    made[-1].unlink()
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert processed_fingerprint(dataset) is None
    assert f"{made[-1]} is missing" in caplog.text


def test_other_tasks_have_none(tree) -> None:
    tree.s4()
    with pytest.raises(UsageError, match="processed_frames are of avss, not of s4"):
        processed_fingerprint(open_dataset(tree.root, S4))
