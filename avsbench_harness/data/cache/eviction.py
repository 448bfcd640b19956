"""The size limit of the cache: least recently used collections make room for new ones.

The limit covers decoded clips, log-mels, embeddings, maps of backbones and packed solutions, all of which are
computed again when they are needed. It does not cover other content of the cache folder: weights, maskiges,
pseudo-masks and synthetic data.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from avsbench_harness.data.cache.store import RECORD_SIZE
from avsbench_harness.data.cache.use_lock import REMOVED, in_use, last_use, remove_unused
from avsbench_harness.errors import UsageError, unknown
from avsbench_harness.files import cache_dir

logger = logging.getLogger(__name__)

#: Kinds of collections; each is a sub-folder of the cache.
KINDS = ("decoded", "log-mels", "embeddings", "features", "solutions")

#: The environment variable with the limit in GB (10^9 bytes).
LIMIT_VARIABLE = "AVSB_CACHE_LIMIT"
DEFAULT_LIMIT = 100.0

#: Bytes of free disk that the cache leaves for checkpoints and everything else.
RESERVE = 2 * 10**9


@dataclass(frozen=True)
class Collection:
    """One collection of the cache.

    Attributes:
        kind: one of :data:`KINDS`.
        folder: its folder.
        entries: number of arrays.
        size: bytes on disk.
        last_used: when a process last opened it.
        in_use: whether a live process has it open.
    """

    kind: str
    folder: Path
    entries: int
    size: int
    last_used: datetime
    in_use: bool

    def to_json(self) -> dict[str, Any]:
        """The attributes as JSON values."""
        return {
            "kind": self.kind,
            "name": self.folder.name,
            "entries": self.entries,
            "bytes": self.size,
            "last_used": self.last_used.isoformat(timespec="seconds"),
            "in_use": self.in_use,
        }


def size_limit() -> int:
    """The limit in bytes: ``AVSB_CACHE_LIMIT`` in GB, else 100 GB.

    Raises:
        UsageError: the variable is not a number of GB.
    """
    text = os.environ.get(LIMIT_VARIABLE, "")
    try:
        gigabytes = float(text) if text else DEFAULT_LIMIT
    except ValueError:
        gigabytes = -1.0
    if not 0 <= gigabytes < 10**9:
        raise UsageError(f"{LIMIT_VARIABLE} is '{text}'; set it to a number of GB, for example 100.")
    return int(gigabytes * 10**9)


def collections(kind: str | None = None) -> list[Collection]:
    """The collections of one kind or of all, the least recently used first.

    Raises:
        UsageError: the kind is unknown.
    """
    if kind is not None and kind not in KINDS:
        raise unknown("kind of cached data", kind, KINDS)
    found = []
    for folder in _folders((kind,) if kind else KINDS):
        with suppress(FileNotFoundError):  # another process removes it
            found.append(_describe(folder))
    return sorted(found, key=lambda collection: collection.last_used)


def clear(kind: str | None = None) -> tuple[list[Collection], list[Collection]]:
    """Remove the collections of one kind or of all, except those in use.

    Returns:
        The removed collections, and those that a live process uses.

    Raises:
        UsageError: the kind is unknown.
    """
    removed: list[Collection] = []
    kept: list[Collection] = []
    for collection in collections(kind):
        (removed if remove_unused(collection.folder) else kept).append(collection)
    return removed, kept


def make_room(size: int) -> str | None:
    """Remove the least recently used collections until ``size`` more bytes fit, never one in use.

    Returns:
        ``None`` if there is room now, else a sentence that states what is lacking; nothing is removed then.

    Raises:
        OSError: the cache folder cannot be read.
        UsageError: ``AVSB_CACHE_LIMIT`` is not a number.
    """
    if size <= 0:
        return None
    found, limit = collections(), size_limit()
    used = sum(collection.size for collection in found)
    free = shutil.disk_usage(_existing(cache_dir())).free
    excess = max(used + size - limit, size + RESERVE - free)
    candidates = [collection for collection in found if not collection.in_use]
    if excess > sum(collection.size for collection in candidates):
        return (
            f"The cache needs {size / 1e9:.1f} GB more in {cache_dir()}, where {free / 1e9:.1f} GB are free, "
            f"{RESERVE / 1e9:.0f} GB of them reserved, and {used / 1e9:.1f} of at most {limit / 1e9:.1f} GB "
            f"are used; free disk space, set {LIMIT_VARIABLE} to more GB, or set AVSB_CACHE_DIR to a larger "
            "disk."
        )
    for collection in candidates:
        if excess <= 0:
            break
        if remove_unused(collection.folder):
            logger.info(f"Removed {collection.folder} from the cache to make room.")
            excess -= collection.size
    return None


def _folders(kinds: tuple[str, ...]) -> Iterator[Path]:
    """The folders of collections; leftovers of killed removals are removed."""
    for kind in kinds:
        parent = cache_dir() / kind
        if not parent.is_dir():
            continue
        for folder in sorted(parent.iterdir()):
            if folder.name.endswith(REMOVED):
                shutil.rmtree(folder, ignore_errors=True)
            elif folder.is_dir():
                yield folder


def _describe(folder: Path) -> Collection:
    index = folder / "index.bin"
    return Collection(
        kind=folder.parent.name,
        folder=folder,
        entries=index.stat().st_size // RECORD_SIZE if index.is_file() else 0,
        size=sum(path.stat().st_size for path in folder.iterdir()),
        last_used=datetime.fromtimestamp(last_use(folder), UTC),
        in_use=in_use(folder),
    )


def _existing(folder: Path) -> Path:
    """The folder, or its first parent that exists."""
    return folder if folder.exists() else _existing(folder.parent)
