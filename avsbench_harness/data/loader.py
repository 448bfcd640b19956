"""Clips -> batches: decoding, normalising, padding, augmenting and the order of an epoch.

Nothing here keeps a random state: the order of an epoch and every augmentation are functions of the run's
seed, the epoch and the clip, so that a run can be resumed at any step.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, get_worker_info

from avsbench_harness.data.batch import IMAGENET_MEAN, IMAGENET_STD, Batch
from avsbench_harness.data.cache.decoded import ClipSource, FileDecoder
from avsbench_harness.data.clip import Clip
from avsbench_harness.data.transforms import augment
from avsbench_harness.recipe.augment import Augment
from avsbench_harness.recipe.schema import Fit
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
    """Clips as tensors.

    ``source`` gives their pixels: ``decoder``, which reads the files every time, until it is replaced by one
    that gives the same, such as :class:`~avsbench_harness.data.cache.decoded.DecodedClips`.

    Args:
        clips: which clips, in the order of their indices.
        task: how many frames a batch has.
        audio: per clip id (T,128) embeddings or (T,1,96,64) log-mel examples, float32.
        size: side of the images and masks in pixels.
        maskiges: per clip id one maskige file per frame; ``None`` for methods that see none.
        fit: how frames and masks get to that size.
        augment: what is drawn anew in every epoch; ``None`` for clips as they are.
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
        augment: Augment | None = None,
        seed: int = 0,
    ) -> None:
        self.clips = list(clips)
        self.task = task
        self.audio = audio
        self.size = size
        self.decoder = FileDecoder(self.clips, task, size, fit, maskiges)
        self.source: ClipSource = self.decoder
        self.augment = augment or Augment()
        self.seed = seed

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: Key) -> Sample:
        index, epoch = key
        clip = self.clips[index]
        clear = self.source.read(index)
        seen = augment(clear, self.augment, self.size, _generator(self.seed, epoch, clip.id))
        annotated = torch.tensor([path is not None for path in clip.masks])
        total, fill = self.task.frames, None if self.augment.scale is None else self.augment.scale.fill
        masks = _to_square(seen.masks.long(), self.size, self.augment.outside_class)
        return Sample(
            images=_pad(_input(seen.images, self.size, fill), total),
            audio=torch.from_numpy(self.audio[clip.id]),
            valid=_pad(torch.ones(len(masks), dtype=torch.bool), total),
            masks=_pad(masks, total),
            annotated=_pad(annotated, total),
            maskige=None if seen.maskige is None else _pad(_input(seen.maskige, self.size, fill), total),
        )

    def __getitems__(self, keys: Sequence[Key]) -> list[Sample]:
        """Clips in the order of the keys, read by one thread per core; by one in a loader's process."""
        threads = min(len(keys), os.cpu_count() or 1)
        if threads <= 1 or get_worker_info() is not None:
            return [self[key] for key in keys]
        return list(_threads(os.getpid()).map(self.__getitem__, keys))

    def content(self, index: int) -> tuple[int, int]:
        """(width, height) of a clip's frames in the network's input before any augmentation, pixels.

        Less than the input where frames are padded; what a network says of the rest means nothing.
        """
        return self.source.content(index)


def normalise(frames: NDArray[np.uint8]) -> Tensor:
    """(t,H,W,3) uint8 RGB -> (t,3,H,W) float32 with ImageNet's mean and standard deviation."""
    return _normalise(torch.from_numpy(frames).permute(0, 3, 1, 2))


def _normalise(frames: Tensor) -> Tensor:
    mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
    return ((frames.float().div_(255) - mean) / std).contiguous()


def _input(frames: Tensor, size: int, fill: int | None) -> Tensor:
    """(t,3,h,w) uint8 -> (t,3,size,size) float32; padded by a grey value, or after normalising by zeros."""
    if fill is not None:
        return _normalise(_to_square(frames, size, fill))
    return _to_square(_normalise(frames), size, 0)


def _to_square(values: Tensor, size: int, fill: int) -> Tensor:
    """(...,h,w) -> (...,size,size), filled at the right and at the bottom."""
    height, width = values.shape[-2:]
    if (height, width) == (size, size):
        return values.contiguous()
    return functional.pad(values, (0, size - width, 0, size - height), value=fill)


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


class Batches:
    """Batches in their order; the next one is made while one is worked with."""

    def __init__(self, loader: DataLoader[Batch]) -> None:
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self._loader)
        if (
            self._loader.num_workers
        ):  # which work ahead by themselves, and are not to be forked beside a thread
            yield from batches
            return
        with ThreadPoolExecutor(1) as ahead:
            following = ahead.submit(next, batches, None)
            while (batch := following.result()) is not None:
                following = ahead.submit(next, batches, None)
                yield batch


def load(
    dataset: ClipDataset, batches: Sequence[Sequence[Key]], *, workers: int = 0, device: str = "cpu"
) -> Batches:
    """The batches, made by ``workers`` processes (0: by threads of this one)."""
    return Batches(
        DataLoader(
            dataset,  # type: ignore[arg-type]
            batch_sampler=[list(batch) for batch in batches],
            collate_fn=collate,
            num_workers=workers,
            pin_memory=device.startswith("cuda"),
            # DataLoader draws a seed for its workers; from a generator of its own it leaves the run's alone.
            generator=torch.Generator().manual_seed(0),
        )
    )


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    """One thread per core, for as long as this process lives; a forked one needs its own."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix=f"clips-{process}")


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
