"""Audit of a competition: chain of the log, stored files, private scores, receipts, recomputed scores."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avsbench_harness.errors import AvsbError, UsageError
from avsbench_harness.files import read_json, sha256_file
from avsbench_harness.host.challenge import Challenge
from avsbench_harness.host.log import Entry, commitment, parse_export, verify
from avsbench_harness.host.scoring_queue import request_for
from avsbench_harness.host.snapshot import Snapshot
from avsbench_harness.host.worker import score_isolated

#: Longest exported log that is read, bytes.
MAX_LOG = 1 << 30


@dataclass
class Audit:
    """The result of an audit.

    Attributes:
        entries: number of entries of the log.
        recomputed: (submission, version) of the recomputed scores.
        faults: one line each; empty if everything agrees.
    """

    entries: int = 0
    recomputed: list[tuple[int, int]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def audit_export(path: Path) -> Audit:
    """Verify the chain of an exported log."""
    if path.stat().st_size > MAX_LOG:
        raise UsageError(f"{path} has more than {MAX_LOG >> 20} MiB, too much for a log.")
    text = path.read_bytes().decode("utf-8", errors="replace")
    entries = parse_export(text)
    faults = verify(entries) if entries else ["the log has no entries."]
    return Audit(entries=len(entries), faults=faults)


def audit(challenge: Challenge, *, sample: int = 3, seed: int = 0) -> Audit:
    """Verify the chain and everything that it determines, and recompute a sample of scores.

    Args:
        challenge: the competition.
        sample: number of scores to recompute.
        seed: random seed of the sample.
    """
    entries = challenge.entries()
    result = Audit(entries=len(entries), faults=verify(entries))
    if result.faults:
        return result  # the state of a broken log means nothing
    snapshot = challenge.snapshot()
    result.faults += _files(challenge, snapshot)
    result.faults += _private_scores(challenge, snapshot)
    result.faults += _receipts(challenge, entries)
    scored = [(one.number, version) for one in snapshot.submissions.values() for version in one.scores]
    result.recomputed = sorted(random.Random(seed).sample(scored, min(sample, len(scored))))
    for number, version in result.recomputed:
        result.faults += _recompute(challenge, snapshot, number, version)
    return result


def _files(challenge: Challenge, snapshot: Snapshot) -> list[str]:
    faults = []
    for version in snapshot.versions:
        path = challenge.solution_of(version.number)
        if not path.is_file() or sha256_file(path) != version.sha256:
            faults.append(f"version {version.number}: {path} is not the ground truth that was recorded.")
    for one in snapshot.submissions.values():
        path = challenge.file_of(one.ticket)
        if not path.is_file() or sha256_file(path) != one.sha256:
            faults.append(f"submission {one.number}: {path} is not the file that was received.")
    return faults


def _private_scores(challenge: Challenge, snapshot: Snapshot) -> list[str]:
    faults = []
    for version in snapshot.versions:
        stored = challenge.private_scores(version.number)
        for one in snapshot.submissions.values():
            expected = one.commitments.get(version.number)
            if expected is None:
                continue
            found = stored.get(one.number)
            if found is None or commitment(*found) != expected:
                faults.append(
                    f"submission {one.number}, version {version.number}: the private scores do not match "
                    "their commitment in the log."
                )
    return faults


def _receipts(challenge: Challenge, entries: list[Entry]) -> list[str]:
    """Receipts are outside the database: they detect a log that was replaced as a whole."""
    digests = {entry.seq: entry.digest for entry in entries}
    faults = []
    for path in sorted(challenge.receipts.glob("*.json")):
        try:
            log = read_json(path)["log"]
            intact = digests.get(log["seq"]) == log["digest"]
        except (UsageError, KeyError, TypeError):
            intact = False
        if not intact:
            faults.append(f"{path}: it does not match the log.")
    return faults


def _recompute(challenge: Challenge, snapshot: Snapshot, number: int, version: int) -> list[str]:
    one = snapshot.submissions[number]
    try:
        result = score_isolated(request_for(challenge, snapshot, one, version))
    except AvsbError as error:
        return [f"submission {number}, version {version}: {error}"]
    private = challenge.private_scores(version)[number][1]
    expected: tuple[Any, Any] = (one.scores[version], private)
    if result.fault or (result.public, result.private) != expected:
        reason = result.fault or "recomputed scores differ"
        return [f"submission {number}, version {version}: {reason}."]
    return []
