"""The lock that keeps a cached collection from being removed while a process uses it.

Every process that has a collection open holds a shared lock on a file in its folder; removing takes an
exclusive one. The system releases the locks of a process that ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import weakref
from contextlib import suppress
from pathlib import Path

_NAME = ".in-use"

#: Ends the names of folders that are being removed, or were when their process was killed.
REMOVED = ".removed"


class UseLock:
    """A shared lock on a folder, held from :meth:`hold` until the object is garbage-collected."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        self._held: tuple[int, int] | None = None
        self._release: weakref.finalize[..., UseLock] | None = None

    def hold(self) -> None:
        """Take the lock unless it is held, and note the time of use.

        A folder that was removed and made again is locked anew. Without effect if the folder cannot be
        written or its file system has no locks: nobody can remove it from there, or knows that it may.
        """
        with suppress(OSError):
            if self._held is not None and self._held == _identity(os.stat(self._path)):  # noqa: PTH116 - fast
                return
        with suppress(OSError):
            self._take()

    def _take(self) -> None:
        if self._release is not None:
            self._release()
        while True:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CREAT, 0o666)
            self._release = weakref.finalize(self, os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            with suppress(FileNotFoundError):
                if _identity(os.fstat(descriptor)) == _identity(self._path.stat()):
                    break
            self._release()  # the folder was removed before the lock was granted
        self._held = _identity(os.fstat(descriptor))
        with suppress(OSError):
            os.utime(descriptor)


def last_use(folder: Path) -> float:
    """The time at which a process last opened a folder, seconds since the epoch."""
    path = folder / _NAME
    return (path if path.exists() else folder).stat().st_mtime


def in_use(folder: Path) -> bool:
    """Whether a live process holds the folder."""
    descriptor = _exclusive(folder)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def remove_unused(folder: Path) -> bool:
    """Remove a folder unless a live process holds it; returns whether it was removed."""
    descriptor = _exclusive(folder)
    if descriptor is None:
        return False
    try:
        # Renamed first: a process that opens the collection meanwhile finds all of it or nothing.
        removed = folder.rename(folder.with_name(f".{folder.name}.{os.getpid()}{REMOVED}"))
        shutil.rmtree(removed, ignore_errors=True)
    finally:
        os.close(descriptor)
    return True


def _exclusive(folder: Path) -> int | None:
    """An open file with the exclusive lock, or ``None`` if another process holds or removes the folder."""
    path = folder / _NAME
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        return None
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _identity(os.fstat(descriptor)) == _identity(path.stat()):
            return descriptor
    os.close(descriptor)
    return None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
