"""Files written whole or not at all, hashes, and where the cache lies."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import platformdirs

from avsbench_harness.errors import UsageError


def cache_dir() -> Path:
    """The folder for everything that can be made again: ``AVSB_CACHE_DIR``, else the user's cache folder."""
    override = os.environ.get("AVSB_CACHE_DIR")
    return Path(override) if override else Path(platformdirs.user_cache_dir("avsbench-harness"))


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears at ``path`` complete when the block ends, and not at all if it fails.

    The bytes go to a temporary file in the same folder, reach the disk (fsync), and are renamed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files; results are for everyone
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_at(path: Path, place: int, content: bytes | memoryview) -> None:
    """Write bytes at a place of a file, which is made if it is not there; the rest stays.

    For files that are mapped into memory too: through a map, a full disk would kill the process.

    Raises:
        OSError: the disk is full, or the file cannot be written.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    with os.fdopen(descriptor, "r+b") as file:
        file.seek(place)
        file.write(content)


def sweep_temporaries(folder: Path) -> None:
    """Remove what killed processes left of files that :func:`atomic_write` had begun in a folder.

    Only for a folder that nobody else writes to: the caller holds its lock.
    """
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Bring a file, or a folder with its renames, to the disk; nothing where folders cannot be opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with atomic_write(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with a final newline, whole or not at all; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; a file that is not JSON is a :class:`UsageError` that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid JSON ({error}).") from error


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """The SHA-256 of a value's canonical JSON (sorted keys, no spaces), as 64 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
