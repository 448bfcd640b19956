from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from avsbench_harness.data.images import read_frame
from avsbench_harness.data.layout import open_dataset
from avsbench_harness.data.loader import ClipDataset, epoch_order, in_order, load, normalise
from avsbench_harness.data.synth import write_synthetic
from avsbench_harness.tasks import AVSS, S4


@pytest.fixture
def clips(real_s4: Path):
    return open_dataset(real_s4, S4).clips("train")


def silent(clips, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {clip.id: np.full(shape, index, np.float32) for index, clip in enumerate(clips)}


def test_an_epoch_is_a_permutation_that_seed_and_epoch_decide() -> None:
    order = epoch_order(10, 4, seed=1, epoch=2)
    assert [len(batch) for batch in order] == [4, 4, 2]
    assert sorted(index for batch in order for index, _ in batch) == list(range(10))
    assert {epoch for batch in order for _, epoch in batch} == {2}
    assert order == epoch_order(10, 4, seed=1, epoch=2)
    indices = [
        [index for batch in epoch_order(10, 4, s, e) for index, _ in batch] for s, e in ((1, 3), (2, 2))
    ]
    assert len({tuple(one) for one in [*indices, [index for batch in order for index, _ in batch]]}) == 3
    assert in_order(3, 2) == [[(0, 0), (1, 0)], [(2, 0)]]


def test_a_batch_holds_what_the_files_hold(clips) -> None:
    dataset = ClipDataset(clips, S4, silent(clips, (5, 128)), size=64)
    (batch,) = load(dataset, [[(1, 0), (0, 0)]])
    assert batch.images.shape == (2, 5, 3, 64, 64)
    frame = normalise(np.stack([read_frame(clips[1].frames[3], 64)]))[0]
    assert torch.equal(batch.images[0, 3], frame)
    assert batch.audio[:, 0, 0].tolist() == [1.0, 0.0]
    assert batch.valid is not None
    assert batch.valid.all()
    assert batch.annotated is not None
    assert batch.annotated.tolist() == [[True] + [False] * 4] * 2  # S4 trains on the first frame's mask
    assert batch.masks is not None
    assert batch.masks.dtype == torch.int64
    assert set(batch.masks[:, 0].unique().tolist()) == {0, 1}
    assert batch.masks[:, 1:].sum() == 0


def test_normalising_gives_imagenet_statistics() -> None:
    frames = np.stack([np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)])
    low, high = normalise(frames)
    assert low[:, 0, 0].tolist() == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    assert (high - low)[:, 0, 0].tolist() == pytest.approx([1 / 0.229, 1 / 0.224, 1 / 0.225])


def test_processes_decode_the_same(clips) -> None:
    dataset = ClipDataset(clips, S4, silent(clips, (5, 128)), size=32, flip=True, seed=3)
    order = epoch_order(len(clips), 2, seed=3, epoch=1)
    for one, two in zip(load(dataset, order), load(dataset, order, workers=2), strict=True):
        assert torch.equal(one.images, two.images)


def test_a_flip_mirrors_frames_and_masks_of_a_clip_alike(clips) -> None:
    audio = silent(clips, (5, 128))
    plain = ClipDataset(clips, S4, audio, size=32)
    flipped = ClipDataset(clips, S4, audio, size=32, flip=True)
    seen = set()
    for epoch in range(8):
        one, two = plain[0, epoch], flipped[0, epoch]
        mirrored = not torch.equal(one.images, two.images)
        seen.add(mirrored)
        if mirrored:
            assert torch.equal(one.images.flip(-1), two.images)
            assert torch.equal(one.masks.flip(-1), two.masks)
        again = flipped[0, epoch]
        assert torch.equal(two.images, again.images)
    assert seen == {True, False}


def test_short_clips_are_padded(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "avss", AVSS, (0, 0, 6), seed=2, jobs=1)
    clips = open_dataset(tmp_path / "avss", AVSS).clips("test")
    assert {len(clip.frames) for clip in clips} == {5, 10}
    dataset = ClipDataset(clips, AVSS, silent(clips, (10, 128)), size=32)
    (batch,) = load(dataset, in_order(len(clips), len(clips)))
    assert batch.valid is not None
    assert batch.valid.sum(1).tolist() == [len(clip.frames) for clip in clips]
    assert batch.images[~batch.valid].abs().sum() == 0
    assert batch.masks is not None
    assert batch.masks[~batch.valid].sum() == 0
    assert not batch.annotated_frames()[~batch.valid].any()
    assert batch.masks.max() > 1
