"""Receipts of submissions: a function of the log, one JSON file per ticket, with the public score alone."""

from __future__ import annotations

from typing import Any

from avsbench_harness.files import read_json, write_json
from avsbench_harness.host.challenge import Challenge
from avsbench_harness.host.definition import iso
from avsbench_harness.host.snapshot import Refusal, Snapshot, Submission


def receipt(snapshot: Snapshot, outcome: Submission | Refusal) -> dict[str, Any]:
    """The receipt of a submission or refusal as JSON values."""
    team = None if outcome.team is None else snapshot.teams[outcome.team]
    common = {"ticket": outcome.ticket, "team": team, "arrived": iso(outcome.arrived)}
    if isinstance(outcome, Refusal):
        return {**common, "status": "refused", "reason": outcome.reason}
    version = max(outcome.scores, default=None)
    return {
        **common,
        "submission": outcome.number,
        "sha256": outcome.sha256,
        "phase": outcome.phase or "late",
        "status": outcome.status,
        "reason": outcome.reason,
        "version": version,
        "public": None if version is None else outcome.scores[version],
    }


def write_receipts(challenge: Challenge) -> None:
    """Write all receipts that are missing or out of date."""
    snapshot = challenge.snapshot()
    for ticket in snapshot.by_ticket:
        write_receipt(challenge, snapshot, ticket)


def write_receipt(challenge: Challenge, snapshot: Snapshot, ticket: str) -> None:
    """Write the receipt of a ticket, unless the file has this content."""
    outcome = snapshot.outcome(ticket)
    if outcome is None:
        return
    seq, digest = outcome.log
    values = {**receipt(snapshot, outcome), "log": {"seq": seq, "digest": digest}}
    path = challenge.receipts / f"{ticket}.json"
    if not path.is_file() or read_json(path) != values:
        write_json(path, values)
