"""Arrays of clips in one memory-mapped file, each with a checksum.

``clips.bin`` has a slot of fixed place and length for every clip; what is not written is a hole that takes no
disk. ``index.bin`` has a fixed entry per clip: a CRC-32 of the contents, their sides, and whether they are
there. The contents are written before their entry, and all writers of a slot write the same bytes, so that
processes may share a store and a killed one leaves nothing half-written that would be taken for whole.

Checksums are compared when a process first reads a clip, not on opening, which therefore costs the same for
ten clips and for ten thousand.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from avsbench_harness.files import atomic_write, write_at

_ENTRY = np.dtype([("crc", "<u4"), ("height", "<u2"), ("width", "<u2"), ("written", "u1")])


class ClipStore:
    """uint8 contents of clips, by their index.

    Args:
        folder: where the store lies; made if it is not there. One folder holds one list of lengths.
        lengths: bytes of each clip's slot.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """

    def __init__(self, folder: Path, lengths: Sequence[int]) -> None:
        self.folder = folder
        self.lengths = list(lengths)
        self._places = [0, *accumulate(self.lengths)]
        self._verified: set[int] = set()
        self._make()

    @property
    def lock(self) -> FileLock:
        """Held by a process that writes many clips, so that others wait instead of doing the same work."""
        return FileLock(self.folder / ".filling")

    def written(self, index: int) -> bool:
        """Whether a clip's contents are there, damaged or not."""
        return bool(self._entries[index]["written"])

    def missing(self) -> list[int]:
        """The clips whose contents are not there."""
        return [int(index) for index in np.flatnonzero(self._entries["written"] != 1)]

    def read(self, index: int, planes: int) -> NDArray[np.uint8] | None:
        """The contents (planes,h,w) of a written clip, a copy; ``None`` if they are damaged."""
        entry = self._entries[index].copy()
        sides = int(entry["height"]), int(entry["width"])
        size, place = planes * sides[0] * sides[1], self._places[index]
        if not 0 < size <= self.lengths[index]:
            return None
        contents = np.array(self._contents[place : place + size])
        if index not in self._verified:
            if _checksum(contents, sides) != entry["crc"]:
                return None
            self._verified.add(index)
        return contents.reshape(planes, *sides)

    def write(self, index: int, contents: NDArray[np.uint8]) -> None:
        """Keep a clip's contents (planes,h,w).

        Raises:
            OSError: the disk is full, or the files cannot be written.
        """
        height, width = contents.shape[1:]
        if contents.size > self.lengths[index]:
            raise ValueError(f"{contents.size} bytes do not fit into a slot of {self.lengths[index]}")
        write_at(self._file, self._places[index], np.ascontiguousarray(contents).data)
        entry = np.array((_checksum(contents, (height, width)), height, width, 1), _ENTRY)
        write_at(self._index, index * _ENTRY.itemsize, entry.tobytes())

    @property
    def _file(self) -> Path:
        return self.folder / "clips.bin"

    @property
    def _index(self) -> Path:
        return self.folder / "index.bin"

    @cached_property
    def _contents(self) -> NDArray[np.uint8]:
        return np.memmap(self._file, np.uint8, "r", shape=(self._places[-1],))

    @cached_property
    def _entries(self) -> NDArray[np.void]:
        return np.memmap(self._index, _ENTRY, "r", shape=(len(self.lengths),))

    def _make(self) -> None:
        """Both files at their full length, unless they are there."""
        if self._whole():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".making"):
            if self._whole():
                return
            with self._file.open("ab") as file:
                file.truncate(self._places[-1])
            with atomic_write(self._index) as file:
                file.write(bytes(len(self.lengths) * _ENTRY.itemsize))

    def _whole(self) -> bool:
        wanted = {self._file: self._places[-1], self._index: len(self.lengths) * _ENTRY.itemsize}
        return all(path.is_file() and path.stat().st_size == size for path, size in wanted.items())

    def __getstate__(self) -> dict[str, Any]:
        """Without the maps, which every process opens for itself."""
        return {name: value for name, value in vars(self).items() if name not in ("_contents", "_entries")}


def _checksum(contents: NDArray[np.uint8], sides: tuple[int, int]) -> int:
    return zlib.crc32(np.ascontiguousarray(contents).data, zlib.crc32(struct.pack("<HH", *sides)))
