"""Clips as batches: normalisation, padding and augmentation.

There is no random state: every augmentation is a function of the run's seed, the epoch and the clip, so that
a run can be resumed at any step.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torchvision.transforms.v2 import functional

from avsbench_harness.data.batch import IMAGENET_MEAN, IMAGENET_STD, Batch
from avsbench_harness.data.cache.features import CachedFeatures
from avsbench_harness.data.clip_source import ClipSource
from avsbench_harness.data.epochs import Key, generator
from avsbench_harness.data.negatives import Negatives
from avsbench_harness.data.padding import pad_frames, pad_to_square
from avsbench_harness.data.transforms import Pixels, augment
from avsbench_harness.recipe.augment import IGNORED, Augment


@dataclass(frozen=True)
class Sample:
    """One clip of a batch: its tensors without the batch axis, padded to the task's frames."""

    images: Tensor
    audio: Tensor
    valid: Tensor
    masks: Tensor
    annotated: Tensor
    maskige: Tensor | None
    features: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)


class ClipDataset(Dataset[Sample]):
    """Clips as tensors.

    Args:
        source: the clips and their pixels.
        audio: per clip id (T,128) embeddings or (T,1,96,64) log-mel examples, float32.
        augment: the augmentation, drawn anew in every epoch; ``None`` for none.
        seed: seed of the augmentation.
        negatives: negative audio of the clips, if any.

    Attributes:
        features: the cached maps of a frozen backbone, if any.
    """

    def __init__(
        self,
        source: ClipSource,
        audio: Mapping[str, NDArray[np.float32]],
        *,
        augment: Augment | None = None,
        seed: int = 0,
        negatives: Negatives | None = None,
    ) -> None:
        self.source = source
        self.clips = list(source.clips)
        self.task = source.task
        self.size = source.size
        self.audio = audio
        self.augment = augment or Augment()
        self.seed = seed
        self.negatives = negatives
        self.features: CachedFeatures | None = None

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: Key) -> Sample:
        index, epoch = key
        clip = self.clips[index]
        draw = generator(self.seed, epoch, clip.id)
        pixels = augment(self.source.read(index), self.augment, self.size, draw)
        audio, negative = self.audio[clip.id], self._negative(clip.id, epoch)
        if negative is not None:
            audio = negative
            pixels = replace(pixels, masks=pixels.masks.where(pixels.masks == IGNORED, 0))
        annotated = torch.tensor([path is not None for path in clip.masks])
        total, fill = self.task.frames, None if self.augment.scale is None else self.augment.scale.fill
        masks = pad_to_square(pixels.masks.long(), self.size, self.augment.outside_class)
        inputs = network_inputs(pixels, self.size, fill)
        maskige = inputs.get("maskige")
        features = {} if self.features is None else self.features.read(index, pixels.flipped)
        return Sample(
            images=pad_frames(inputs["images"], total),
            audio=torch.from_numpy(audio),
            valid=pad_frames(torch.ones(len(masks), dtype=torch.bool), total),
            masks=pad_frames(masks, total),
            annotated=pad_frames(annotated, total),
            maskige=None if maskige is None else pad_frames(maskige, total),
            features={
                source: [pad_frames(level, total) for level in levels] for source, levels in features.items()
            },
        )

    def _negative(self, clip: str, epoch: int) -> NDArray[np.float32] | None:
        """The negative audio of a clip in an epoch, ``None`` if it keeps its own."""
        if self.negatives is None:
            return None
        return self.negatives.draw(clip, generator(self.seed, epoch, f"{clip}/negative audio"))

    def __getitems__(self, keys: Sequence[Key]) -> list[Sample]:
        """Return the clips of the keys, read by one thread per core; in a DataLoader worker by one thread."""
        threads = min(len(keys), os.cpu_count() or 1)
        if threads <= 1 or get_worker_info() is not None:
            return [self[key] for key in keys]
        return list(_threads(os.getpid()).map(self.__getitem__, keys))

    def content(self, index: int) -> tuple[int, int]:
        """Return (width, height) of a clip's frames in the unaugmented network input, pixels.

        It is smaller than the input if frames are padded; predictions outside of it are meaningless.
        """
        return self.source.content(index)


def normalise(frames: Tensor) -> Tensor:
    """(t,3,H,W) uint8 RGB -> float32 with ImageNet's mean and standard deviation."""
    scaled = frames.float().div_(255)  # to_dtype(scale=True) rounds differently
    normalised: Tensor = functional.normalize(scaled, list(IMAGENET_MEAN), list(IMAGENET_STD), inplace=True)
    return normalised.contiguous()


def network_inputs(pixels: Pixels, size: int, fill: int | None = None) -> dict[str, Tensor]:
    """Return the normalised ``images``, and ``maskige`` if there are maskiges, (t,3,size,size) float32.

    Args:
        pixels: the clip.
        size: side of the network input, pixels.
        fill: grey value of the padding; ``None`` for zeros after normalising.
    """
    inputs = {"images": _input(pixels.images, size, fill)}
    if pixels.maskige is not None:
        inputs["maskige"] = _input(pixels.maskige, size, fill)
    return inputs


def _input(frames: Tensor, size: int, fill: int | None) -> Tensor:
    """(t,3,h,w) uint8 -> (t,3,size,size) float32, padded with ``fill``, else with zeros after normalising."""
    if fill is not None:
        return normalise(pad_to_square(frames, size, fill))
    return pad_to_square(normalise(frames), size, 0)


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack clips to a batch."""
    maskiges = [sample.maskige for sample in samples if sample.maskige is not None]
    return Batch(
        images=torch.stack([sample.images for sample in samples]),
        audio=torch.stack([sample.audio for sample in samples]),
        valid=torch.stack([sample.valid for sample in samples]),
        maskige=torch.stack(maskiges) if maskiges else None,
        masks=torch.stack([sample.masks for sample in samples]),
        annotated=torch.stack([sample.annotated for sample in samples]),
        features={
            source: [
                torch.stack(levels) for levels in zip(*(s.features[source] for s in samples), strict=True)
            ]
            for source in samples[0].features
        },
    )


def in_order(clips: int, batch_size: int) -> list[list[Key]]:
    """Return the batches of one pass over all clips in their order; the last one may be smaller."""
    keys = [(index, 0) for index in range(clips)]
    return [keys[start : start + batch_size] for start in range(0, clips, batch_size)]


class Batches:
    """Batches in their order; the next one is prepared while the current one is used."""

    def __init__(self, loader: DataLoader[Batch]) -> None:
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self._loader)
        if self._loader.num_workers:  # they prefetch themselves, and must not be forked beside a thread
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
    """Return the batches, prepared by DataLoader worker processes (0: by threads of this process)."""
    return Batches(
        DataLoader(
            dataset,  # type: ignore[arg-type]
            batch_sampler=[list(batch) for batch in batches],
            collate_fn=collate,
            num_workers=workers,
            pin_memory=device.startswith("cuda"),
            # DataLoader draws a seed for its workers; its own generator leaves the run's random state alone.
            generator=torch.Generator().manual_seed(0),
        )
    )


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    """One thread per core, for the lifetime of this process; a forked process needs its own."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix=f"clips-{process}")
