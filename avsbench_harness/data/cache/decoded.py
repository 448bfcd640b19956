"""Clips decoded once: frames, masks and maskiges of a list of clips at one size, kept in the cache.

Where they are not kept yet they come from their files, and are kept then; :meth:`DecodedClips.fill` does so
for all at once, in threads (Pillow decodes and resizes without the interpreter's lock).
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avsbench_harness.data.cache.clip_store import ClipStore
from avsbench_harness.data.clip import Clip
from avsbench_harness.data.images import read_clip_masks, read_frame
from avsbench_harness.data.maskige import read_maskige
from avsbench_harness.data.pixels import Fit as FileFit
from avsbench_harness.data.pixels import Size, content_size, load_image
from avsbench_harness.data.transforms import Pixels
from avsbench_harness.files import cache_dir, sha256_json
from avsbench_harness.recipe.schema import Fit
from avsbench_harness.tasks import Task

logger = logging.getLogger(__name__)

#: Changes whenever decoding or resizing gives other pixels for the same files.
VERSION = 1

#: Bytes of disk that the decoded clips leave free, for checkpoints and all else.
RESERVE = 2 * 10**9

#: Bytes per pixel of a frame: its colours and its mask, and its maskige's colours.
_PLANES, _MASKIGE_PLANES = 4, 3


class ClipSource(Protocol):
    """Where a loader takes its pixels from."""

    def read(self, index: int) -> Pixels:
        """A clip's pixels."""

    def content(self, index: int) -> tuple[int, int]:
        """(width, height) of a clip's frames, pixels."""


@dataclass(frozen=True)
class FileDecoder:
    """Clips from their files, decoded at every reading.

    Attributes:
        clips: which clips, in the order of their indices.
        task: whose masks they have.
        size: longest side of the results, pixels.
        fit: how frames and masks get to that size.
        maskiges: per clip id one maskige file per frame; ``None`` for none.
    """

    clips: Sequence[Clip]
    task: Task
    size: int
    fit: Fit = "squeeze"
    maskiges: Mapping[str, Sequence[Path]] | None = None

    def read(self, index: int) -> Pixels:
        """A clip's pixels: squares of ``size``, or with ``pad`` what the frame fills of one."""
        clip = self.clips[index]
        size: Size = self.size
        fit: FileFit = "squeeze"
        if self.fit == "pad":  # all files of a clip get the shape that its first frame asks for
            size = self.content(index)
        else:
            fit = self.fit
        frames = [read_frame(path, size, fit) for path in clip.frames]
        masks, _ = read_clip_masks(clip, self.task, size, fit)
        painted = None
        if self.maskiges is not None:
            painted = _channels_first([read_maskige(path, size, fit) for path in self.maskiges[clip.id]])
        return Pixels(_channels_first(frames), torch.from_numpy(masks), painted)

    def content(self, index: int) -> tuple[int, int]:
        """(width, height) of a clip's frames, pixels."""
        if self.fit != "pad":
            return self.size, self.size
        return content_size(*load_image(self.clips[index].frames[0]).size, self.size)

    def key(self) -> str:
        """A hash (64 hexadecimal digits) of all that decides the pixels.

        As in the data set's fingerprint files count by name and size, and here by the time of their last
        change too, so that one edited in place is decoded again; where the data lie does not matter.
        """
        clips = [
            [clip.id, [path if path is None else _signature(path) for path in self._files(clip)]]
            for clip in self.clips
        ]
        semantic = self.task.semantic
        return sha256_json(
            {"version": VERSION, "semantic": semantic, "size": self.size, "fit": self.fit, "clips": clips}
        )

    def planes(self, index: int) -> int:
        """Values that a pixel's place has in all frames of a clip."""
        per_frame = _PLANES + (0 if self.maskiges is None else _MASKIGE_PLANES)
        return len(self.clips[index].frames) * per_frame

    def _files(self, clip: Clip) -> Iterator[Path | None]:
        yield from (*clip.frames, *clip.masks)
        if self.maskiges is not None:
            yield from self.maskiges[clip.id]


class DecodedClips:
    """Clips that are decoded once and then read from a memory-mapped file of the cache.

    A clip whose contents are damaged there is decoded again. If the disk fills up, clips come from their
    files from then on.

    Args:
        decoder: reads what is not kept yet.

    Raises:
        OSError: the cache folder cannot be written.
    """

    def __init__(self, decoder: FileDecoder) -> None:
        self.decoder = decoder
        self._full = False
        square = decoder.size**2
        lengths = [decoder.planes(index) * square for index in range(len(decoder.clips))]
        name = f"{decoder.task.name}-{decoder.size}-{decoder.key()[:16]}"
        self.store = ClipStore(cache_dir() / "decoded" / name, lengths)

    def read(self, index: int) -> Pixels:
        """A clip's pixels, bit for bit those of the decoder."""
        if self.store.written(index):
            kept = self.store.read(index, self.decoder.planes(index))
            if kept is not None:
                return _unpack(kept, len(self.decoder.clips[index].frames))
            clip = self.decoder.clips[index].id
            logger.warning(f"Clip {clip} is damaged in {self.store.folder}; it is decoded again.")
        pixels = self.decoder.read(index)
        self._keep(index, pixels)
        return pixels

    def content(self, index: int) -> tuple[int, int]:
        """(width, height) of a clip's frames, pixels."""
        if self.decoder.fit != "pad":
            return self.decoder.content(index)
        height, width = self.read(index).sides
        return width, height

    def shortage(self) -> str | None:
        """A sentence if the disk has too little room for what is still to be written."""
        wanted = sum(self.store.lengths[index] for index in self.store.missing())
        free = shutil.disk_usage(self.store.folder).free
        if wanted == 0 or wanted + RESERVE <= free:
            return None
        return (
            f"The decoded clips need {wanted / 1e9:.1f} GB in {self.store.folder}, where "
            f"{free / 1e9:.1f} GB are free, of which {RESERVE / 1e9:.0f} are left; make room or set "
            "AVSB_CACHE_DIR to a larger disk."
        )

    def fill(self, progress: Callable[[int], None] | None = None, jobs: int | None = None) -> tuple[int, int]:
        """Decode what is not kept yet; returns how many clips that were, and their bytes.

        A call that is cut off leaves the clips that it wrote; another process that fills the same store is
        waited for.

        Args:
            progress: called with the number of clips done since the last call, those that were there too.
            jobs: threads; by default one per core.

        Raises:
            MissingDataError, BadFileError: as by the decoder.
        """
        report = progress or (lambda count: None)
        if not self.store.missing():
            report(len(self.decoder.clips))
            return 0, 0
        with self.store.lock:
            todo = self.store.missing()
            report(len(self.decoder.clips) - len(todo))
            written = 0
            for size in _in_threads(self._decode, todo, jobs or os.cpu_count() or 1):
                written += size
                report(1)
        return len(todo), written

    def _decode(self, index: int) -> int:
        pixels = self.decoder.read(index)
        return self._keep(index, pixels)

    def _keep(self, index: int, pixels: Pixels) -> int:
        """Write a clip's pixels; returns their bytes, 0 where they could not be written."""
        if self._full:
            return 0
        packed = _pack(pixels)
        try:
            self.store.write(index, packed)
        except OSError as error:
            self._full = True
            logger.warning(
                f"{self.store.folder} cannot be written ({error.strerror}); clips come from files."
            )
            return 0
        return packed.size


def _in_threads(work: Callable[[int], int], todo: Sequence[int], jobs: int) -> Iterator[int]:
    """The results as they come; the first error ends it, with no work begun after."""
    remaining, running = iter(todo), set[Future[int]]()
    with ThreadPoolExecutor(jobs) as pool:
        while True:
            for index in remaining:
                running.add(pool.submit(work, index))
                if len(running) >= 2 * jobs:
                    break
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()


def _pack(pixels: Pixels) -> NDArray[np.uint8]:
    """A clip as planes (n,h,w): colours of all frames, masks, colours of the maskiges."""
    parts = [pixels.images.flatten(0, 1), pixels.masks]
    if pixels.maskige is not None:
        parts.append(pixels.maskige.flatten(0, 1))
    packed: NDArray[np.uint8] = torch.cat(parts).numpy()
    return packed


def _unpack(packed: NDArray[np.uint8], frames: int) -> Pixels:
    planes, shape = torch.from_numpy(packed), (frames, 3, *packed.shape[1:])
    colours, masks, painted = planes[: 3 * frames], planes[3 * frames : 4 * frames], planes[4 * frames :]
    return Pixels(colours.reshape(shape), masks, painted.reshape(shape) if len(painted) else None)


def _signature(path: Path) -> tuple[str, int | None, int | None]:
    """A file's name, size and time of its last change; ``None`` where it is missing."""
    try:
        found = os.stat(path)  # noqa: PTH116 - twice as fast as through the Path
    except OSError:
        return path.name, None, None
    return path.name, found.st_size, found.st_mtime_ns


def _channels_first(frames: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Frames (h,w,3) as one tensor (t,3,h,w)."""
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()
