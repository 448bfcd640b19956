"""Scoring of pending submissions, shared by ``avsb challenge ingest``, ``rescore`` and the server."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from filelock import FileLock, Timeout

from avsbench_harness.errors import AvsbError
from avsbench_harness.host.challenge import Challenge
from avsbench_harness.host.snapshot import Snapshot, Submission
from avsbench_harness.host.worker import Request, score_isolated

logger = logging.getLogger(__name__)


def request_for(challenge: Challenge, snapshot: Snapshot, one: Submission, version: int) -> Request:
    """The scoring of a submission under a version."""
    chosen = snapshot.versions[version - 1]
    limits = challenge.definition.limits
    return Request(
        submission=str(challenge.file_of(one.ticket)),
        solution=str(challenge.solution_of(version)),
        protocol=chosen.protocol,
        metrics=chosen.metrics,
        accepted=tuple(known.solution for known in snapshot.versions),
        memory=limits.memory,
        seconds=limits.seconds,
    )


def score_pending(challenge: Challenge) -> Iterator[Submission]:
    """Score the pending submissions under the newest version; yield each after it has been scored.

    Submissions that another process is scoring are left to it. If a process dies, the next one scores its
    submission; scores that are stored twice are stored once.
    """
    tried: set[int] = set()
    while True:
        snapshot = challenge.snapshot()
        version = snapshot.versions[-1].number
        waiting = [one for one in snapshot.pending(version) if one.number not in tried]
        if not waiting:
            return
        one = waiting[0]
        tried.add(one.number)
        if score_one(challenge, one.number, version):
            yield challenge.snapshot().submissions[one.number]


def score_one(challenge: Challenge, number: int, version: int) -> bool:
    """Score one submission; ``False`` if another process is scoring it or has scored it."""
    lock = FileLock(challenge.locks / f"{number}-{version}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    try:
        snapshot = challenge.snapshot()
        one = snapshot.submissions[number]
        if one not in snapshot.pending(version):
            return False
        try:
            result = score_isolated(request_for(challenge, snapshot, one, version))
        except AvsbError as error:
            logger.warning(f"Submission {number}: {error}")
            return challenge.record_failure(number, version, str(error), invalid=False)
        if result.fault:
            return challenge.record_failure(number, version, result.fault, invalid=True)
        return challenge.record_scores(number, version, result.public, result.private)
    finally:
        lock.release()
