"""Clips -> batches: decoding, normalising, padding, augmenting and the order of an epoch.

Nothing here keeps a random state: the order of an epoch and every augmentation are functions of the run's
seed, the epoch and the clip, so that a run can be resumed at any step.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from avsbench_harness.data.batch import IMAGENET_MEAN, IMAGENET_STD, Batch
from avsbench_harness.data.clip import Clip
from avsbench_harness.data.images import Fit, read_clip_masks, read_frame
from avsbench_harness.data.maskige import read_maskige
from avsbench_harness.tasks import Task

#: A clip to read, by its index, and the epoch that it is read for.
Key: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Sample:
    """One clip of a batch: its tensors without the leading axis, padded to the task's frames."""

    images: Tensor
    audio: Tensor
    valid: Tensor
    masks: Tensor
    annotated: Tensor
    maskige: Tensor | None


class ClipDataset(Dataset[Sample]):
    """Decoded clips.

    Args:
        clips: which clips, in the order of their indices.
        task: how many frames a batch has.
        audio: per clip id (T,128) embeddings or (T,1,96,64) log-mel examples, float32.
        size: side of the images and masks in pixels.
        maskiges: per clip id one maskige file per frame; ``None`` for methods that see none.
        fit: how frames and masks get to that size.
        flip: mirror half of the clips, all frames of a clip alike.
        seed: of the augmentation.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        task: Task,
        audio: Mapping[str, NDArray[np.float32]],
        *,
        size: int,
        maskiges: Mapping[str, Sequence[Path]] | None = None,
        fit: Fit = "squeeze",
        flip: bool = False,
        seed: int = 0,
    ) -> None:
        self.clips = list(clips)
        self.task = task
        self.audio = audio
        self.size = size
        self.maskiges = maskiges
        self.fit = fit
        self.flip = flip
        self.seed = seed

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: Key) -> Sample:
        index, epoch = key
        clip = self.clips[index]
        frames = np.stack([read_frame(path, self.size, self.fit) for path in clip.frames])
        masks, annotated = read_clip_masks(clip, self.task, self.size, self.fit)
        painted = None
        if self.maskiges is not None:
            painted = np.stack([read_maskige(path, self.size, self.fit) for path in self.maskiges[clip.id]])
        if self.flip and _generator(self.seed, epoch, clip.id).random() < 0.5:
            frames, masks = frames[:, :, ::-1], masks[:, :, ::-1]
            painted = None if painted is None else painted[:, :, ::-1]
        total = self.task.frames
        return Sample(
            images=_pad(normalise(frames), total),
            audio=torch.from_numpy(self.audio[clip.id]),
            valid=_pad(torch.ones(len(frames), dtype=torch.bool), total),
            masks=_pad(torch.from_numpy(masks.astype(np.int64)), total),
            annotated=_pad(torch.from_numpy(annotated.copy()), total),
            maskige=None if painted is None else _pad(normalise(painted), total),
        )


def normalise(frames: NDArray[np.uint8]) -> Tensor:
    """(t,H,W,3) uint8 RGB -> (t,3,H,W) float32 with ImageNet's mean and standard deviation."""
    scaled = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float().div_(255)
    mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
    return ((scaled - mean) / std).contiguous()


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack clips into a batch."""
    maskiges = [sample.maskige for sample in samples if sample.maskige is not None]
    return Batch(
        images=torch.stack([sample.images for sample in samples]),
        audio=torch.stack([sample.audio for sample in samples]),
        valid=torch.stack([sample.valid for sample in samples]),
        maskige=torch.stack(maskiges) if maskiges else None,
        masks=torch.stack([sample.masks for sample in samples]),
        annotated=torch.stack([sample.annotated for sample in samples]),
    )


def epoch_order(clips: int, batch_size: int, seed: int, epoch: int) -> list[list[Key]]:
    """The batches of one training epoch: a permutation of all clips, the last batch possibly smaller."""
    order = _generator(seed, epoch, "order").permutation(clips)
    return _chunks([(int(index), epoch) for index in order], batch_size)


def in_order(clips: int, batch_size: int) -> list[list[Key]]:
    """The batches of a pass over all clips as they stand."""
    return _chunks([(index, 0) for index in range(clips)], batch_size)


def load(
    dataset: ClipDataset, batches: Sequence[Sequence[Key]], *, workers: int = 0, device: str = "cpu"
) -> DataLoader[Batch]:
    """The batches, decoded by ``workers`` processes (0: by this one)."""
    return DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=[list(batch) for batch in batches],
        collate_fn=collate,
        num_workers=workers,
        pin_memory=device.startswith("cuda"),
        # DataLoader draws a seed for its workers; from a generator of its own it leaves the run's alone.
        generator=torch.Generator().manual_seed(0),
    )


def _chunks(keys: list[Key], size: int) -> list[list[Key]]:
    return [keys[start : start + size] for start in range(0, len(keys), size)]


def _generator(seed: int, epoch: int, name: str) -> np.random.Generator:
    """The generator that belongs to one name in one epoch of a run."""
    key = np.random.SeedSequence([seed, epoch, zlib.crc32(name.encode())])
    return np.random.Generator(np.random.Philox(key))


def _pad(values: Tensor, frames: int) -> Tensor:
    """Zeros behind the frames that exist."""
    missing = frames - len(values)
    if missing <= 0:
        return values[:frames]
    return torch.cat([values, values.new_zeros((missing, *values.shape[1:]))])
