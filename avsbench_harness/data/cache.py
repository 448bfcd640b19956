"""A cache of arrays on disk: one file per key, written whole, checked when read, rebuilt when damaged."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avsbench_harness.errors import AvsbError
from avsbench_harness.files import atomic_write, sha256_json

_DIGEST = hashlib.sha256().digest_size


def array_key(**parts: str | int) -> str:
    """A cache key (64 hexadecimal digits) from all that decides an array's values."""
    return sha256_json(parts)


class ArrayCache:
    """float32 arrays of one shape under hexadecimal keys in a folder.

    A file is a ``.npy`` followed by the SHA-256 of its bytes, in one of 256 sub-folders. Processes may share
    a folder: writers of one key write the same bytes, and a rename is all or nothing.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        self.folder = folder
        self.shape = shape

    def path(self, key: str) -> Path:
        """Where the array of that key lies, or would lie."""
        return self.folder / key[:2] / f"{key}.npy"

    def load(self, key: str) -> NDArray[np.float32] | None:
        """The stored array, or ``None`` where there is none or the file is damaged."""
        try:
            content = self.path(key).read_bytes()
        except FileNotFoundError:
            return None
        body, digest = content[:-_DIGEST], content[-_DIGEST:]
        if hashlib.sha256(body).digest() != digest:
            return None
        array: NDArray[np.float32] = np.load(io.BytesIO(body), allow_pickle=False)
        return array if array.shape == self.shape and array.dtype == np.float32 else None

    def store(self, key: str, array: NDArray[np.float32]) -> None:
        """Write an array; one of another shape or type is a ``ValueError``."""
        if array.shape != self.shape or array.dtype != np.float32:
            raise ValueError(f"expected float32 {self.shape}, got {array.dtype} {array.shape}")
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
        body = buffer.getvalue()
        with atomic_write(self.path(key)) as file:
            file.write(body)
            file.write(hashlib.sha256(body).digest())

    def get(self, key: str, compute: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        """The stored array, else the computed one, which is stored first."""
        array = self.load(key)
        if array is None:
            array = compute()
            self.store(key, array)
        return array


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
        key = self._keys[name]
        array = self._cache.load(key)
        if array is None:
            raise AvsbError(
                f"{self._cache.path(key)}, the sound of clip {name}, was removed or damaged meanwhile; the "
                "same command makes it again."
            )
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)
