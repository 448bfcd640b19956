"""Atomic writes, JSON, hashes, and the cache folder."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import platformdirs

from avsbench_harness.errors import UsageError

#: Limits of JSON files.
MAX_JSON_BYTES, MAX_JSON_DEPTH = 64 << 20, 100

# Numbers that may be beyond 64 bits; also matches some that are not.
_LARGE_NUMBER = re.compile(r"\d{20}|[eE]\+?\d{3}")


def cache_dir() -> Path:
    """The cache folder: ``AVSB_CACHE_DIR``, else the user's cache folder of the system."""
    override = os.environ.get("AVSB_CACHE_DIR")
    return Path(override) if override else Path(platformdirs.user_cache_dir("avsbench-harness"))


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that appears at ``path`` when the block ends, and not at all if it fails.

    The content is written to a temporary file in the same folder, synchronised (fsync) and renamed. Temporary
    files that killed processes left in the folder are removed first.

    Raises:
        OSError: the file cannot be written; the error names ``path``.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(path.parent)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.name}.{os.getpid()}-{_host()}.", suffix=".tmp", dir=path.parent
        )
    temporary = Path(name)
    try:
        with naming(path, temporary):
            with os.fdopen(handle, "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)  # mkstemp creates private files
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Name ``path`` in the error of a failed write, which otherwise names a temporary file or none.

    Raises:
        OSError: the write failed; also where safetensors or ``torch.save`` raised another exception for it.
    """
    try:
        yield
    except OSError as error:
        own = error.filename is None or Path(str(error.filename)) == temporary
        if error.errno is None or not (own or str(error.filename).endswith(".tmp")):
            raise
        raise OSError(error.errno, error.strerror or "failed", str(path)) from error
    except Exception as error:
        cause = error.__context__
        number = re.search(r"\(os error ([0-9]+)\)", str(error))
        code = cause.errno if isinstance(cause, OSError) else int(number[1]) if number else None
        if code is None:
            raise
        raise OSError(code, os.strerror(code), str(path)) from error


def _host() -> str:
    """A short name of this machine for temporary files."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


#: The folders in which this process has looked for temporary files of killed processes.
_swept: set[Path] = set()


def _sweep_once(folder: Path) -> None:
    """Remove temporary files of :func:`atomic_write` whose process on this machine no longer exists."""
    if folder in _swept:
        return
    _swept.add(folder)
    for path in folder.glob(f".*-{_host()}.*.tmp"):
        found = re.search(rf"\.([0-9]{{1,9}})-{_host()}\.[^.]*\.tmp$", path.name)
        if found and not _is_alive(int(found[1])):
            with suppress(OSError):
                path.unlink()


def _is_alive(process: int) -> bool:
    """Whether a process of this machine exists."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def write_at(path: Path, offset: int, content: bytes | memoryview) -> None:
    """Write bytes at an offset of a file, which is created if missing.

    Used for memory-mapped files: a write through the map would kill the process on a full disk.

    Raises:
        OSError: the disk is full, or the file cannot be written; the error names ``path``.
    """
    with naming(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        with os.fdopen(descriptor, "r+b") as file:
            file.seek(offset)
            file.write(content)


def sweep_temporaries(folder: Path) -> None:
    """Remove temporary files of :func:`atomic_write` that killed processes left in a folder.

    The caller must hold the folder's lock.
    """
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Synchronise a file or a folder with the disk (fsync); a no-op where folders cannot be opened."""
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
    """Read a JSON file that may come from a stranger.

    Raises:
        UsageError: the file is not JSON, or has more than :data:`MAX_JSON_BYTES` or :data:`MAX_JSON_DEPTH`,
            numbers beyond 64 bits, or lone surrogates.
    """
    if path.exists() and not path.is_file():  # reading a named pipe would block
        raise UsageError(f"{path} is not a regular file.")
    with path.open("rb") as file:
        content = file.read(MAX_JSON_BYTES + 1)
    return parse_json(content, str(path))


def parse_json(content: bytes, where: str) -> Any:
    """Parse the content of a JSON file under the limits of :func:`read_json`; ``where`` names the file."""
    if len(content) > MAX_JSON_BYTES:
        raise UsageError(f"{where} has more than {MAX_JSON_BYTES >> 20} MiB, too much for a JSON file here.")
    try:
        text = content.decode("utf-8")
        value = json.loads(text, parse_constant=_refuse_constant)
        if text.count("{") + text.count("[") > MAX_JSON_DEPTH or _LARGE_NUMBER.search(text):
            _check_json(value)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # lone surrogates
    except RecursionError:
        raise UsageError(f"{where} is not valid JSON (nested too deeply).") from None
    except ValueError as error:
        raise UsageError(f"{where} is not valid JSON ({error}).") from None
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _check_json(value: object) -> None:
    """Refuse deep nesting and numbers that other readers cannot represent."""
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        below: list[object] = []
        for one in level:
            if isinstance(one, dict):
                below += one.values()
            elif isinstance(one, list):
                below += one
            elif isinstance(one, float):
                if math.isinf(one):
                    raise ValueError("a number is too large")
            elif isinstance(one, int) and abs(one) >> 64:
                raise ValueError("an integer has more than 64 bits")
        if not below:
            return
        level = below
    raise ValueError(f"nested more than {MAX_JSON_DEPTH} levels deep")


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """The SHA-256 of a value's canonical JSON (sorted keys, no spaces), as 64 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
