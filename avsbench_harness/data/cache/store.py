"""The array store: arrays that are computed once and read from memory-mapped files.

A collection is a folder with three files:

- ``data.bin``: the bytes of the arrays, one after the other;
- ``index.bin``: one record of fixed size per array: key, offset, data type, shape, CRC-32 of the array, and
  CRC-32 of the record itself;
- ``.in-use``: locked by every process that has the collection open, see :mod:`.use_lock`.

An array is written before its record, and writers take turns, so a killed writer leaves nothing that would be
read as complete. The CRC of an array is compared when a process first reads it. A damaged or truncated array
is reported as missing, so that its caller computes and stores it again. Opening costs one read of the index.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO, RawIOBase
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from avsbench_harness.data.cache.use_lock import UseLock
from avsbench_harness.errors import AvsbError
from avsbench_harness.files import sha256_json, write_at

logger = logging.getLogger(__name__)

_MAX_DIMENSIONS = 6
#: Bytes that are read at once to check an array.
_PIECE = 1 << 20
#: Data types of arrays; the position is the code in a record.
_DTYPES = (np.dtype(np.uint8), np.dtype("<f4"))

# Key, offset, shape, number of dimensions, code of the data type, CRC of the array; then CRC of these fields.
_FIELDS = struct.Struct(f"<32sQ{_MAX_DIMENSIONS}IHHI")
_CRC = struct.Struct("<I")
#: Bytes of a record.
RECORD_SIZE = _FIELDS.size + _CRC.size

# Threads of one process take turns here; file locks are for other processes, and slow to wait for.
_THREADS = threading.Lock()


def array_key(**parts: str | int) -> str:
    """Return the key (64 hexadecimal digits) that is made of everything that determines an array."""
    return sha256_json(parts)


class _Record(NamedTuple):
    """One record of the index."""

    key: bytes
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    crc: int

    @property
    def length(self) -> int:
        """Bytes of the array."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def end(self) -> int:
        """Position behind the array in the data file."""
        return self.offset + self.length

    def pack(self) -> bytes:
        """Return the record as bytes."""
        padded = (*self.shape, *[0] * (_MAX_DIMENSIONS - len(self.shape)))
        code = _DTYPES.index(self.dtype)
        fields = _FIELDS.pack(self.key, self.offset, *padded, len(self.shape), code, self.crc)
        return fields + _CRC.pack(zlib.crc32(fields))

    @classmethod
    def unpack(cls, content: bytes) -> _Record | None:
        """Return the record, or ``None`` if it is damaged or truncated."""
        fields = content[: _FIELDS.size]
        if len(content) != RECORD_SIZE or _CRC.pack(zlib.crc32(fields)) != content[_FIELDS.size :]:
            return None
        key, offset, *sides, dimensions, code, crc = _FIELDS.unpack(fields)
        return cls(key, offset, _DTYPES[code], tuple(sides[:dimensions]), crc)


class ArrayStore:
    """The arrays of one collection, by keys of 64 hexadecimal digits (:func:`array_key`).

    Threads and processes may share it. It can be pickled; every process opens the files for itself.

    Args:
        folder: the collection's folder; made when something is stored.
    """

    _count: int  # records read
    _end: int  # bytes of the data file that are used
    _places: dict[bytes, tuple[int, int]]  # per key the slot of its record and the end of its array
    _damaged: list[int]  # slots of damaged records
    _verified: set[_Record]  # records whose arrays this process has compared with their CRC

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = UseLock(folder)
        self._logged: set[int] = set()  # slots whose damage was logged
        self._mapped: tuple[tuple[int, int], NDArray[np.uint8]] = (0, 0), np.zeros(0, np.uint8)
        self._reset()

    @property
    def data(self) -> Path:
        """The bytes of the arrays."""
        return self.folder / "data.bin"

    @property
    def index(self) -> Path:
        """The records."""
        return self.folder / "index.bin"

    @property
    def filling(self) -> FileLock:
        """Held by a process that computes many arrays, so that others wait instead of repeating its work."""
        return FileLock(self.folder / ".filling")

    def open(self) -> None:
        """Make the folder if necessary and hold it against eviction.

        Raises:
            OSError: the folder cannot be written.
        """
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError), _THREADS:  # another process may remove the folder in between
                self._hold()
                return

    def stored_keys(self) -> list[str]:
        """The keys of the stored arrays, damaged ones included."""
        with _THREADS, self._opened():
            return [key.hex() for key in self._places]

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The keys without a complete array; checksums are not compared."""
        with _THREADS, self._opened():
            size = _size(self.data)
            return [key for key in keys if not 0 < self._places.get(bytes.fromhex(key), (0, 0))[1] <= size]

    def load(self, key: str, label: str = "An array") -> NDArray[Any] | None:
        """Return a copy of a stored array, or ``None`` if it is missing or damaged.

        Args:
            key: its key.
            label: names the array in the message that is logged if it is damaged.
        """
        with _THREADS:
            record = self._find(bytes.fromhex(key))
        if record is None:
            return None
        content = self._read(record)
        if content is not None and record not in self._verified:
            if zlib.crc32(content.data) == record.crc:
                self._verified.add(record)
            else:
                content = None
        if content is None:
            self._report(label)
            return None
        return content.view(record.dtype).reshape(record.shape)

    def is_intact(self, key: str, label: str = "An array") -> bool:
        """Whether an array is stored and not damaged; it is read in pieces.

        Args:
            key: its key.
            label: names the array in the message that is logged if it is damaged.
        """
        with _THREADS:
            record = self._find(bytes.fromhex(key))
        if record is None:
            return False
        crc, position = 0, record.offset
        with suppress(FileNotFoundError), self.data.open("rb") as file:
            file.seek(position)
            while position < record.end and (piece := file.read(min(record.end - position, _PIECE))):
                crc, position = zlib.crc32(piece, crc), position + len(piece)
        if (crc, position) != (record.crc, record.end):
            self._report(label)
            return False
        return True

    def _report(self, label: str) -> None:
        logger.warning(f"{label} in {self.folder} is damaged; it is computed again.")

    def store(self, key: str, array: NDArray[Any]) -> None:
        """Write an array of uint8 or float32; replace the one of this key if there is one.

        Raises:
            OSError: the disk is full, or the files cannot be written.
            ValueError: the array is empty, has more than 6 dimensions or another data type.
        """
        if array.dtype not in _DTYPES or not array.size or array.ndim > _MAX_DIMENSIONS:
            raise ValueError(f"expected a uint8 or float32 array, got {array.dtype} {array.shape}")
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        name = bytes.fromhex(key)
        self.open()
        with _THREADS, FileLock(self.folder / ".writing"):
            if self._damaged:
                self._reset()  # another process may have replaced the damaged records
            with self._opened(writing=True):
                old = self._find(name)
            if old is not None and old.length == len(content):
                offset = old.offset
            else:
                alone = len(self._places) == (name in self._places)
                offset = 0 if alone else self._end
                _cut(self.data, offset)  # a killed writer or a full disk may have left bytes there
            slot = self._places[name][0] if old else self._damaged[0] if self._damaged else self._count
            record = _Record(name, offset, array.dtype, array.shape, zlib.crc32(content.data))
            write_at(self.data, offset, content.data)
            write_at(self.index, slot * RECORD_SIZE, record.pack())
            self._note(slot, record)

    def get(self, key: str, compute: Callable[[], NDArray[Any]], label: str = "An array") -> NDArray[Any]:
        """Return the stored array; if it is missing or damaged, compute and store it first."""
        array = self.load(key, label)
        if array is None:
            array = compute()
            self.store(key, array)
        return array

    def _find(self, name: bytes) -> _Record | None:
        """Return a key's record as it is on disk now."""
        for _ in range(2):
            with self._opened() as index:
                if name not in self._places:
                    return None
                index.seek(self._places[name][0] * RECORD_SIZE)
                record = _Record.unpack(index.read(RECORD_SIZE) or b"")
            if record is not None and record.key == name:
                return record
            self._reset()  # the record was damaged, or the collection was removed and made again
        return None

    @contextmanager
    def _opened(self, *, writing: bool = False) -> Iterator[RawIOBase | BytesIO]:
        """The opened index, after reading the records that were added since the last call."""
        try:
            self._hold()
            index: RawIOBase | BytesIO = self.index.open("rb", buffering=0)
        except (FileNotFoundError, NotADirectoryError):
            index = BytesIO()
        with index:
            count = index.seek(0, os.SEEK_END) // RECORD_SIZE
            if count < self._count:
                self._reset()
            if count > self._count:
                index.seek(self._count * RECORD_SIZE)
                added = index.read((count - self._count) * RECORD_SIZE) or b""
                for slot, place in enumerate(range(0, len(added), RECORD_SIZE), self._count):
                    record = _Record.unpack(added[place : place + RECORD_SIZE])
                    if record is None and slot == count - 1 and not writing:
                        break  # it may be being written
                    self._note(slot, record)
            yield index

    def _note(self, slot: int, record: _Record | None) -> None:
        """Take a record of the index into account, ``None`` for a damaged one."""
        if record is not None:
            self._places[record.key] = slot, record.end
            self._end = max(self._end, record.end)
            if slot in self._damaged:
                self._damaged.remove(slot)
        else:
            self._damaged.append(slot)
            if slot not in self._logged:
                self._logged.add(slot)
                logger.warning(f"Record {slot} of {self.index} is damaged; its array is computed again.")
        self._count = max(self._count, slot + 1)

    def _read(self, record: _Record) -> NDArray[np.uint8] | None:
        """Copy an array's bytes; ``None`` if the file is too short."""
        try:
            found = os.stat(self.data)  # noqa: PTH116 - faster
            if found.st_size < record.end:
                return None
            file, mapped = self._mapped
            if file != (found.st_dev, found.st_ino) or len(mapped) < record.end:
                file, mapped = (found.st_dev, found.st_ino), np.memmap(self.data, np.uint8, "r")
                self._mapped = file, mapped
        except FileNotFoundError:
            return None
        return np.array(mapped[record.offset : record.end])

    def _hold(self) -> None:
        if self._lock.hold():  # for the first time, or in a folder that was removed and made again
            self._reset()

    def _reset(self) -> None:
        """Forget the index, which is read again from its first record."""
        self._count = 0
        self._end = 0
        self._places = {}
        self._damaged = []
        self._verified = set()

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]


class StoredArrays(Mapping[str, NDArray[np.float32]]):
    """Stored arrays by clip id, each read when it is accessed: memory does not grow with their number.

    Args:
        store: where they are.
        keys: the store's key of each clip id.
    """

    def __init__(self, store: ArrayStore, keys: Mapping[str, str]) -> None:
        self.store = store
        self._keys = dict(keys)

    def __getitem__(self, clip: str) -> NDArray[np.float32]:
        """The array of a clip.

        Raises:
            AvsbError: it was removed or damaged.
        """
        array = self.store.load(self._keys[clip], f"The audio of clip {clip}")
        if array is None:
            raise AvsbError(
                f"The audio of clip {clip} in {self.store.folder} was removed or damaged; rerun the same "
                "command to compute it again."
            )
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def _size(path: Path) -> int:
    """Bytes of a file, 0 if it does not exist."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _cut(path: Path, size: int) -> None:
    """Remove what a file has beyond a size."""
    if _size(path) > size:
        os.truncate(path, size)
