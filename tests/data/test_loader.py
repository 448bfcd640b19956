from __future__ import annotations

import dataclasses
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from avsbench_harness.data.avsbench.layout import open_dataset
from avsbench_harness.data.clip_source import FileDecoder
from avsbench_harness.data.epochs import Epochs
from avsbench_harness.data.images import read_frame
from avsbench_harness.data.loader import ClipDataset, in_order, load, normalise
from avsbench_harness.data.synth import write_synthetic
from avsbench_harness.errors import MissingDataError
from avsbench_harness.recipe.augment import IGNORED, Augment
from avsbench_harness.tasks import AVSS, S4

EVERYTHING = Augment.parse(
    {
        "flip": 0.5,
        "affine": {"rotation": 20},
        "scale": {"factors": [0.5, 1.0, 2.0], "fill": 128},
        "jitter": {"per_frame": True},
        "outside": "ignore",
    },
    "here",
)


@pytest.fixture
def clips(real_s4: Path):
    return open_dataset(real_s4, S4).clips("train")


def silent(clips, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {clip.id: np.full(shape, index, np.float32) for index, clip in enumerate(clips)}


def test_a_pass_in_order_ends_with_a_smaller_batch() -> None:
    assert in_order(3, 2) == [[(0, 0), (1, 0)], [(2, 0)]]


def test_a_batch_has_the_contents_of_the_files(clips) -> None:
    dataset = ClipDataset(FileDecoder(clips, S4, 64), silent(clips, (5, 128)))
    (batch,) = load(dataset, [[(1, 0), (0, 0)]])
    assert batch.images.shape == (2, 5, 3, 64, 64)
    frame = normalise(torch.tensor(read_frame(clips[1].frames[3], 64)).permute(2, 0, 1)[None])[0]
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
    frames = torch.stack([torch.zeros(3, 2, 2), torch.full((3, 2, 2), 255)]).byte()
    low, high = normalise(frames)
    assert low[:, 0, 0].tolist() == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    assert (high - low)[:, 0, 0].tolist() == pytest.approx([1 / 0.229, 1 / 0.224, 1 / 0.225])


def test_worker_processes_give_the_same_batches(clips) -> None:
    dataset = ClipDataset(FileDecoder(clips, S4, 32), silent(clips, (5, 128)), augment=EVERYTHING, seed=3)
    order = [Epochs(len(clips), 2, seed=3).batch(step) for step in range(4)]
    for one, two in zip(load(dataset, order), load(dataset, order, workers=2), strict=True):
        assert torch.equal(one.images, two.images)


# After an error DataLoader waits five seconds for each of its processes.
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_missing_file_is_named(clips, tmp_path: Path, workers: int) -> None:
    gone = tmp_path / "gone.png"
    broken = dataclasses.replace(clips[1], frames=(gone, *clips[1].frames[1:]))
    dataset = ClipDataset(FileDecoder([clips[0], broken], S4, 32), silent([clips[0], broken], (5, 128)))
    batches = iter(load(dataset, in_order(2, 1), workers=workers))
    assert next(batches).images.shape == (1, 5, 3, 32, 32)
    with pytest.raises(MissingDataError, match=r"gone\.png"):
        next(batches)


def test_a_pass_may_be_abandoned(clips) -> None:
    dataset = ClipDataset(FileDecoder(clips, S4, 32), silent(clips, (5, 128)))
    before = threading.active_count()
    batches = iter(load(dataset, in_order(len(clips), 1)))
    next(batches)
    del batches
    assert threading.active_count() <= before + (os.cpu_count() or 1)
    assert len(list(load(dataset, in_order(len(clips), 2)))) == -(-len(clips) // 2)


def test_a_flip_mirrors_frames_and_masks_of_a_clip_equally(clips) -> None:
    audio = silent(clips, (5, 128))
    plain = ClipDataset(FileDecoder(clips, S4, 32), audio)
    flipped = ClipDataset(FileDecoder(clips, S4, 32), audio, augment=Augment(flip=0.5))
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


def test_scaled_frames_are_padded_and_the_padding_is_ignored(clips) -> None:
    half = Augment.parse({"scale": {"factors": [0.5], "fill": 128}, "outside": "ignore"}, "here")
    sample = ClipDataset(FileDecoder(clips, S4, 64), silent(clips, (5, 128)), augment=half)[0, 0]
    assert sample.masks.shape == (5, 64, 64)
    assert sample.masks[:, :32, :32].max() <= 1
    assert (sample.masks[:, 32:] == IGNORED).all()
    assert (sample.masks[:, :, 32:] == IGNORED).all()
    grey = normalise(torch.full((1, 3, 1, 1), 128, dtype=torch.uint8))[0]
    assert torch.equal(sample.images[:, :, 32:], grey.expand(5, 3, 32, 64))
    background = Augment.parse({"scale": {"factors": [0.5]}}, "here")
    plain = ClipDataset(FileDecoder(clips, S4, 64), silent(clips, (5, 128)), augment=background)[0, 0]
    assert plain.masks[:, 32:].sum() == 0


def test_padding_keeps_aspect_and_contents(clips, tmp_path: Path) -> None:
    """A wide frame fills the width and zeros the rest, equally in frames, masks and maskiges."""
    clip = clips[0]
    frames, masks = [], []
    for number in range(5):
        picture, mask = np.zeros((60, 120, 3), np.uint8), np.zeros((60, 120), np.uint8)
        picture[:30, :60], mask[:30, :60] = 255, 255
        frames.append(tmp_path / f"{number}.png")
        masks.append(tmp_path / f"mask-{number}.png")
        Image.fromarray(picture).save(frames[-1])
        Image.fromarray(mask).save(masks[-1])
    wide = dataclasses.replace(clip, frames=tuple(frames), masks=tuple(masks))
    padded = FileDecoder([wide], S4, 32, "pad", {wide.id: frames})
    dataset = ClipDataset(padded, silent([wide], (5, 128)))
    assert dataset.content(0) == (32, 16)
    sample = dataset[0, 0]
    assert sample.maskige is not None
    for pixels in (sample.images, sample.maskige):
        assert not pixels[:, :, 16:].any()
        assert torch.allclose(pixels[:, 0, 0, 0], torch.tensor((1 - 0.485) / 0.229))
        assert torch.allclose(pixels[:, 0, 15, 31], torch.tensor(-0.485 / 0.229))
    expected = torch.zeros(32, 32, dtype=torch.int64)
    expected[:8, :16] = 1
    assert torch.equal(sample.masks, expected.expand(5, 32, 32))
    assert ClipDataset(FileDecoder([wide], S4, 32), silent([wide], (5, 128))).content(0) == (32, 32)


def test_every_epoch_and_clip_has_its_own_augmentation(clips) -> None:
    dataset = ClipDataset(
        FileDecoder(clips[:1] * 2, S4, 32), silent(clips, (5, 128)), augment=EVERYTHING, seed=3
    )
    epochs = [dataset[0, epoch].images for epoch in range(4)]
    assert len({images.numpy().tobytes() for images in epochs}) == 4
    assert torch.equal(dataset[1, 2].images, epochs[2])  # the clip's id decides, not its place
    other = ClipDataset(FileDecoder(clips[:1], S4, 32), silent(clips, (5, 128)), augment=EVERYTHING, seed=4)
    assert not torch.equal(other[0, 2].images, epochs[2])


def test_short_clips_are_padded(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "avss", AVSS, (0, 0, 6), seed=2, jobs=1)
    clips = open_dataset(tmp_path / "avss", AVSS).clips("test")
    assert {len(clip.frames) for clip in clips} == {5, 10}
    dataset = ClipDataset(FileDecoder(clips, AVSS, 32), silent(clips, (10, 128)))
    (batch,) = load(dataset, in_order(len(clips), len(clips)))
    assert batch.valid is not None
    assert batch.valid.sum(1).tolist() == [len(clip.frames) for clip in clips]
    assert batch.images[~batch.valid].abs().sum() == 0
    assert batch.masks is not None
    assert batch.masks[~batch.valid].sum() == 0
    assert not batch.annotated_frames()[~batch.valid].any()
    assert batch.masks.max() > 1
