"""The append-only log of a competition: entries chained by SHA-256.

An entry is one line of canonical JSON with its number (``seq``, from 1), its time and its ``kind``. Its
digest is the SHA-256 of the previous digest, a line feed and the entry; the digest before the first entry is
64 zeros. Any change of an entry changes all later digests. Entries hold no token, no contact and no private
score: the private scores of a submission are represented by a commitment, the SHA-256 of a random nonce and
the scores.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from avsbench_harness.files import sha256_json

#: Digest before the first entry.
START = "0" * 64


@dataclass(frozen=True)
class Entry:
    """One entry with the text that its digest covers."""

    seq: int
    text: str
    digest: str

    @property
    def values(self) -> dict[str, Any]:
        """The parsed entry."""
        parsed: dict[str, Any] = json.loads(self.text)
        return parsed


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def chain(previous: str, text: str) -> str:
    """The digest of an entry after ``previous``."""
    return hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest()


def next_entry(seq: int, digest: str, kind: str, time: str, values: dict[str, Any]) -> Entry:
    """The entry after the one with number ``seq`` and ``digest``."""
    text = canonical({"seq": seq + 1, "time": time, "kind": kind, **values})
    return Entry(seq + 1, text, chain(digest, text))


def verify(entries: Iterable[Entry]) -> list[str]:
    """Faults of a chain, one line each; empty if it is intact."""
    faults, digest = [], START
    for seq, entry in enumerate(entries, start=1):
        try:
            parsed = entry.values
            intact = isinstance(parsed, dict) and parsed.get("seq") == seq == entry.seq
            intact = intact and canonical(parsed) == entry.text
        except ValueError:
            intact = False
        if not intact:
            faults.append(f"log entry {seq}: it is not the entry that was written.")
        if chain(digest, entry.text) != entry.digest:
            faults.append(f"log entry {seq}: its digest does not follow from the entry before it.")
        digest = entry.digest
    return faults


def export(entries: Iterable[Entry]) -> str:
    """Entries as JSON lines: ``{"entry": ..., "digest": ...}``."""
    return "".join(f'{{"entry":{entry.text},"digest":"{entry.digest}"}}\n' for entry in entries)


_LINE = re.compile(r'\{"entry":(.*),"digest":"([0-9a-f]{64})"\}\Z', re.DOTALL)


def parse_export(text: str) -> list[Entry]:
    """Parse JSON lines of :func:`export`; a malformed line becomes an entry that :func:`verify` refuses."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        match = _LINE.match(line)
        found.append(Entry(number, match[1], match[2]) if match else Entry(number, line, ""))
    return found


def commit(scores: Any) -> tuple[str, str]:
    """A random nonce, and the commitment to private scores under it."""
    nonce = secrets.token_hex(16)
    return nonce, commitment(nonce, scores)


def commitment(nonce: str, scores: Any) -> str:
    """The SHA-256 (64 hexadecimal digits) of a nonce and scores."""
    return sha256_json([nonce, scores])
