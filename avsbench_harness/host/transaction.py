"""Transactions that append to the log of a competition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert

from avsbench_harness.host.database import LOG
from avsbench_harness.host.definition import iso
from avsbench_harness.host.log import Entry, next_entry
from avsbench_harness.host.snapshot import Snapshot

Clock = Callable[[], datetime]


@dataclass
class Transaction:
    """A transaction that appends to the log.

    Attributes:
        connection: its connection.
        snapshot: the state before it.
    """

    connection: Connection
    snapshot: Snapshot
    _clock: Clock

    def __post_init__(self) -> None:
        self._seq, self._digest = self.snapshot.seq, self.snapshot.digest

    def append(self, kind: str, **values: Any) -> Entry:
        """Append an entry."""
        entry = next_entry(self._seq, self._digest, kind, iso(self._clock()), values)
        self.connection.execute(insert(LOG).values(seq=entry.seq, entry=entry.text, digest=entry.digest))
        self._seq, self._digest = entry.seq, entry.digest
        return entry
