"""Arrays computed once: all of one shape in one memory-mapped file, checked when read, rebuilt where damaged.

``arrays.bin`` has slots of one length, ``keys.bin`` the key of each slot and a CRC-32 of its contents. The
contents are written before their entry, and all writers of a key write the same bytes, so that processes may
share the files and a killed one leaves nothing half-written that would be taken for whole.
"""

from __future__ import annotations

import logging
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from avsbench_harness.errors import AvsbError
from avsbench_harness.files import sha256_json, write_at

logger = logging.getLogger(__name__)

# Keys and checksums of the slots.
_ENTRY = struct.Struct("<32sI")

# Threads of one process take turns here; file locks are for other processes, and slow to wait for.
_TURNS = threading.Lock()


def array_key(**parts: str | int) -> str:
    """A cache key (64 hexadecimal digits) from all that decides an array's values."""
    return sha256_json(parts)


class ArrayCache:
    """float32 arrays of one shape under keys of 64 hexadecimal digits.

    Args:
        folder: the arrays of every shape lie in a sub-folder of it.
        shape: of each array.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        self.folder = folder / "x".join(map(str, shape))
        self.shape = shape
        self._length = 4 * prod(shape)
        self._entries = 0
        self._slots: dict[bytes, int] = {}

    @property
    def arrays(self) -> Path:
        """The contents, float32 (slots, *shape) of the machine's byte order."""
        return self.folder / "arrays.bin"

    @property
    def keys(self) -> Path:
        """The key and the checksum of each slot."""
        return self.folder / "keys.bin"

    def load(self, key: str) -> NDArray[np.float32] | None:
        """A copy of the stored array, or ``None`` where there is none or it is damaged."""
        with _TURNS:
            found = self._find(bytes.fromhex(key))
        if found is None:
            return None
        slot, checksum = found
        array = self._read(slot)
        if array is None or zlib.crc32(array.data) != checksum:
            logger.warning(f"An array in {self.folder} is damaged; it is computed again.")
            return None
        return array

    def store(self, key: str, array: NDArray[np.float32]) -> None:
        """Write an array; one of another shape or type is a ``ValueError``.

        Raises:
            OSError: the disk is full, or the files cannot be written.
        """
        if array.shape != self.shape or array.dtype != np.float32:
            raise ValueError(f"expected float32 {self.shape}, got {array.dtype} {array.shape}")
        name, contents = bytes.fromhex(key), np.ascontiguousarray(array).data
        self.folder.mkdir(parents=True, exist_ok=True)
        with _TURNS, FileLock(self.folder / ".writing"):
            found = self._find(name)
            slot = self._entries if found is None else found[0]
            write_at(self.arrays, slot * self._length, contents)
            write_at(self.keys, slot * _ENTRY.size, _ENTRY.pack(name, zlib.crc32(contents)))

    def get(self, key: str, compute: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        """The stored array, else the computed one, which is stored first."""
        array = self.load(key)
        if array is None:
            array = compute()
            self.store(key, array)
        return array

    def _find(self, name: bytes) -> tuple[int, int] | None:
        """A key's slot, and the checksum of what should be there."""
        self._read_keys()
        if name not in self._slots:
            return None
        slot = self._slots[name]
        entry = _read_at(self.keys, slot * _ENTRY.size, _ENTRY.size)
        if len(entry) == _ENTRY.size and entry.startswith(name):
            return slot, _ENTRY.unpack(entry)[1]
        # The files are others than those that were read: somebody emptied the cache meanwhile.
        self._entries = 0
        self._read_keys()
        return None

    def _read_keys(self) -> None:
        """Take in the entries that were written since the last call, by whomever."""
        try:
            entries = self.keys.stat().st_size // _ENTRY.size
        except FileNotFoundError:
            entries = 0
        if entries < self._entries:
            self._entries = 0
        if self._entries == 0:
            self._slots = {}
        wanted = entries - self._entries
        if wanted:
            news = _read_at(self.keys, self._entries * _ENTRY.size, wanted * _ENTRY.size)
            for slot, (name, _) in enumerate(_ENTRY.iter_unpack(news), self._entries):
                self._slots[name] = slot
            self._entries = entries

    def _read(self, slot: int) -> NDArray[np.float32] | None:
        """What a slot holds; ``None`` where the file is too short."""
        try:
            kept = np.memmap(self.arrays, np.float32, "r", slot * self._length, self.shape)
        except (FileNotFoundError, ValueError):
            return None
        return np.array(kept)


class StoredArrays(Mapping[str, NDArray[np.float32]]):
    """Arrays of a cache under names of their own, each read when it is asked for.

    So the memory that they take does not grow with their number.

    Args:
        cache: where they are.
        keys: the cache's key of each name.
    """

    def __init__(self, cache: ArrayCache, keys: Mapping[str, str]) -> None:
        self._cache = cache
        self._keys = dict(keys)

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        """The array of that name; one that has gone or was damaged is an :class:`AvsbError`."""
        array = self._cache.load(self._keys[name])
        if array is None:
            raise AvsbError(
                f"The sound of clip {name} in {self._cache.folder} was removed or damaged meanwhile; the "
                "same command makes it again."
            )
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def _read_at(path: Path, place: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(place)
        return file.read(length)
