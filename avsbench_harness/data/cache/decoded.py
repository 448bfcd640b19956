"""Clips that are decoded once: frames, masks and maskiges of a list of clips at one size, in the cache.

A clip that is not cached is decoded from its files and stored. :meth:`DecodedClips.fill` does so for all
clips at once, in threads (Pillow decodes and resizes without the interpreter's lock).
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import numpy as np
import torch
from numpy.typing import NDArray

from avsbench_harness.data.cache.eviction import make_room
from avsbench_harness.data.cache.store import ArrayStore, array_key
from avsbench_harness.data.clip import Clip
from avsbench_harness.data.clip_source import FileDecoder
from avsbench_harness.data.transforms import Pixels
from avsbench_harness.files import cache_dir
from avsbench_harness.tasks import Task

logger = logging.getLogger(__name__)

# Held while a thread finds out whether it is the first that could not write.
_FIRST_FAILURE = threading.Lock()


class DecodedClips:
    """A clip source that decodes each clip once and reads it from the cache afterwards.

    A clip that is damaged in the cache is decoded again. When the disk is full, clips are decoded from their
    files from then on.

    Args:
        decoder: decodes the clips that are not cached.

    Raises:
        OSError: the cache folder cannot be written.
    """

    def __init__(self, decoder: FileDecoder) -> None:
        self.decoder = decoder
        self._full = False
        self._key = decoder.key()
        name = f"{decoder.task.name}-{decoder.size}-{self._key[:16]}"
        self.store = ArrayStore(cache_dir() / "decoded" / name)
        self.store.open()

    @property
    def clips(self) -> Sequence[Clip]:
        """The clips, in the order of their indices."""
        return self.decoder.clips

    @property
    def task(self) -> Task:
        """The clips' task."""
        return self.decoder.task

    @property
    def size(self) -> int:
        """Side of the network input, pixels."""
        return self.decoder.size

    def read(self, index: int) -> Pixels:
        """Return a clip's pixels, bit for bit those of the decoder."""
        clip = self.clips[index]
        stored = self.store.load(_key(index), f"Clip {clip.id}")
        if stored is not None:
            return _unpack(stored, len(clip.frames))
        pixels = self.decoder.read(index)
        self._store(index, pixels)
        return pixels

    def content(self, index: int) -> tuple[int, int]:
        """Return (width, height) of a clip's frames, pixels."""
        if self.decoder.fit != "pad":
            return self.decoder.content(index)
        height, width = self.read(index).sides
        return width, height

    def key(self) -> str:
        """Return a hash (64 hexadecimal digits) of everything that determines the pixels."""
        return self._key

    def missing(self) -> list[int]:
        """The indices of the clips that are not cached."""
        indices = {_key(index): index for index in range(len(self.clips))}
        return [indices[key] for key in self.store.missing(indices)]

    def make_room(self) -> str | None:
        """Make room for the missing clips, see :func:`~avsbench_harness.data.cache.eviction.make_room`."""
        return make_room(sum(map(self.decoder.max_bytes, self.missing())))

    def fill(self, progress: Callable[[int], None] | None = None, jobs: int | None = None) -> tuple[int, int]:
        """Decode the missing clips; returns how many these were, and their bytes.

        An interrupted call keeps the clips it has stored. If another process fills the same collection, wait
        for it.

        Args:
            progress: called with the number of clips done since the last call, cached ones included.
            jobs: threads; by default one per core.

        Raises:
            MissingDataError, BadFileError: a file is missing or cannot be decoded.
        """
        report = progress or (lambda count: None)
        if not self.missing():
            report(len(self.clips))
            return 0, 0
        with self.store.filling:
            todo = self.missing()
            report(len(self.clips) - len(todo))
            written = 0
            for size in _in_threads(self._decode, todo, jobs or os.cpu_count() or 1):
                written += size
                report(1)
        return len(todo), written

    def _decode(self, index: int) -> int:
        return self._store(index, self.decoder.read(index))

    def _store(self, index: int, pixels: Pixels) -> int:
        """Write a clip's pixels; returns their bytes, 0 if they could not be written."""
        if self._full:
            return 0
        packed = _pack(pixels)
        try:
            self.store.store(_key(index), packed)
        except OSError as error:
            with _FIRST_FAILURE:
                known, self._full = self._full, True
            if not known:
                logger.warning(
                    f"{self.store.folder} cannot be written ({error.strerror}); clips are decoded from files."
                )
            return 0
        return packed.size


def _key(index: int) -> str:
    return array_key(clip=index)


def _in_threads(work: Callable[[int], int], todo: Sequence[int], jobs: int) -> Iterator[int]:
    """Yield results as they are completed; after the first error no new work is started."""
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
    """A clip as planes (n,h,w): RGB of all frames, masks, RGB of all maskiges."""
    parts = [pixels.images.flatten(0, 1), pixels.masks]
    if pixels.maskige is not None:
        parts.append(pixels.maskige.flatten(0, 1))
    packed: NDArray[np.uint8] = torch.cat(parts).numpy()
    return packed


def _unpack(packed: NDArray[np.uint8], frames: int) -> Pixels:
    planes, shape = torch.from_numpy(packed), (frames, 3, *packed.shape[1:])
    images, masks, maskiges = planes[: 3 * frames], planes[3 * frames : 4 * frames], planes[4 * frames :]
    return Pixels(images.reshape(shape), masks, maskiges.reshape(shape) if len(maskiges) else None)
