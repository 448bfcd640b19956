"""Sources of a data set's pixels, and the one that decodes image files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avsbench_harness.data.clip import Clip
from avsbench_harness.data.images import read_clip_masks, read_frame
from avsbench_harness.data.maskige import read_maskige
from avsbench_harness.data.padding import content_size
from avsbench_harness.data.pixels import Size, load_image
from avsbench_harness.data.transforms import Pixels
from avsbench_harness.files import sha256_json
from avsbench_harness.recipe.schema import Fit
from avsbench_harness.tasks import Task

#: Changes whenever decoding or resizing gives other pixels for the same files.
VERSION = 1


class ClipSource(Protocol):
    """The pixels of a list of clips."""

    @property
    def clips(self) -> Sequence[Clip]:
        """The clips, in the order of their indices."""

    @property
    def task(self) -> Task:
        """The clips' task."""

    @property
    def size(self) -> int:
        """Side of the network input, pixels."""

    def read(self, index: int) -> Pixels:
        """Return a clip's pixels: squares of ``size``, or without the padding if they are to be padded."""

    def content(self, index: int) -> tuple[int, int]:
        """Return (width, height) of a clip's frames, pixels."""

    def key(self) -> str:
        """Return a hash (64 hexadecimal digits) of everything that determines the pixels."""


@dataclass(frozen=True)
class FileDecoder:
    """Reads clips from their files and decodes them every time.

    Attributes:
        clips: the clips, in the order of their indices.
        task: the task of their masks.
        size: side of the network input, pixels.
        fit: how frames and masks are resized to it.
        maskiges: per clip id one maskige file per frame; ``None`` for none.
    """

    clips: Sequence[Clip]
    task: Task
    size: int
    fit: Fit = "squeeze"
    maskiges: Mapping[str, Sequence[Path]] | None = None

    def read(self, index: int) -> Pixels:
        """Return a clip's pixels: squares of ``size``, with ``pad`` only the part that the frame covers.

        Raises:
            MissingDataError, BadFileError: a file is missing or cannot be decoded.
        """
        clip = self.clips[index]
        size: Size = self.size
        fit: Fit = self.fit
        if fit == "pad":  # the first frame decides the shape of all files of a clip
            size, fit = self.content(index), "squeeze"
        frames = [read_frame(path, size, fit) for path in clip.frames]
        masks, _ = read_clip_masks(clip, self.task, size, fit)
        maskige = None
        if self.maskiges is not None:
            maskige = _channels_first([read_maskige(path, size, fit) for path in self.maskiges[clip.id]])
        return Pixels(_channels_first(frames), torch.from_numpy(masks), maskige)

    def content(self, index: int) -> tuple[int, int]:
        """Return (width, height) of a clip's frames, pixels."""
        if self.fit != "pad":
            return self.size, self.size
        return content_size(*load_image(self.clips[index].frames[0]).size, self.size)

    def key(self) -> str:
        """Return a hash (64 hexadecimal digits) of everything that determines the pixels.

        Files count by name, size and time of last change, so that a file that was edited in place is decoded
        again. The location of the data does not matter.
        """
        clips = [
            [clip.id, [path if path is None else _signature(path) for path in self._files(clip)]]
            for clip in self.clips
        ]
        semantic = self.task.semantic
        return sha256_json(
            {"version": VERSION, "semantic": semantic, "size": self.size, "fit": self.fit, "clips": clips}
        )

    def max_bytes(self, index: int) -> int:
        """Return the largest size of a clip's decoded pixels, bytes."""
        channels = 4 if self.maskiges is None else 7  # per frame: RGB, mask, RGB of the maskige
        return len(self.clips[index].frames) * channels * self.size**2

    def _files(self, clip: Clip) -> Iterator[Path | None]:
        yield from (*clip.frames, *clip.masks)
        if self.maskiges is not None:
            yield from self.maskiges[clip.id]


def _signature(path: Path) -> tuple[str, int | None, int | None]:
    """A file's name, size and time of last change; ``None`` for both if it is missing."""
    try:
        found = os.stat(path)  # noqa: PTH116 - twice as fast as through the Path
    except OSError:
        return path.name, None, None
    return path.name, found.st_size, found.st_mtime_ns


def _channels_first(frames: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Frames (h,w,3) as one tensor (t,3,h,w)."""
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()
