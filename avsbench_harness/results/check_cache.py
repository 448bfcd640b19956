"""Cache of checked records, by the content of their files; a SQLite file in the cache folder."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avsbench_harness.files import cache_dir

#: Entries that are kept; the oldest are removed first.
MAX_ENTRIES = 20_000

_DIGEST = 32


class CheckCache:
    """Values by key. Without a usable file every value is missing, and nothing is stored."""

    def __init__(self, connection: sqlite3.Connection | None) -> None:
        self._connection = connection

    def get(self, keys: list[str]) -> dict[str, bytes]:
        """The stored values of the keys; damaged values are missing."""
        found: dict[str, bytes] = {}
        if self._connection is None:
            return found
        for key in keys:
            try:
                row = self._connection.execute("SELECT value FROM checks WHERE key = ?", (key,)).fetchone()
            except sqlite3.Error:
                break
            value = row[0] if row is not None and isinstance(row[0], bytes) else b""
            if value and hashlib.sha256(value[_DIGEST:]).digest() == value[:_DIGEST]:
                found[key] = value[_DIGEST:]
        return found

    def put(self, values: dict[str, bytes]) -> None:
        """Store values; a full disk or a locked file is no error."""
        if self._connection is None or not values:
            return
        rows = [(key, hashlib.sha256(value).digest() + value) for key, value in values.items()]
        try:
            with self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO checks VALUES (?, ?)", rows)
                self._connection.execute(
                    "DELETE FROM checks WHERE rowid <= (SELECT MAX(rowid) FROM checks) - ?", (MAX_ENTRIES,)
                )
        except sqlite3.Error:
            return


@contextmanager
def open_cache() -> Iterator[CheckCache]:
    """Open the cache; a damaged file is replaced."""
    path = cache_dir() / "records.sqlite"
    connection = _connect(path) or _connect(path)  # the first attempt removes a damaged file
    try:
        yield CheckCache(connection)
    finally:
        if connection is not None:
            connection.close()


def _connect(path: Path) -> sqlite3.Connection | None:
    connection = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=5)
        connection.execute("CREATE TABLE IF NOT EXISTS checks (key TEXT PRIMARY KEY, value BLOB)")
        return connection
    except (sqlite3.Error, OSError) as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            path.unlink(missing_ok=True)
        return None
