"""Rules of arrival: authentication, phase, limits, duplicates and required fields."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from avsbench_harness.errors import UsageError, printable
from avsbench_harness.host.definition import Definition
from avsbench_harness.host.log import canonical
from avsbench_harness.host.snapshot import Snapshot

#: Longest value of a required field, and longest name of a team, in characters.
MAX_FIELD, MAX_NAME = 500, 60

_TICKET = re.compile(r"[0-9a-f]{32}")
_TOKEN = re.compile(r"avsb_[0-9a-f]{64}")


@dataclass(frozen=True)
class Arrival:
    """An upload as it arrived.

    Attributes:
        ticket: its random id, see :func:`new_ticket`.
        team: the authenticated team; ``None`` if authentication failed.
        arrived: time of arrival.
        sha256: hash of the file, empty if it could not be read.
        size: bytes of the file.
        fields: the required fields by name.
        selected: whether the team selects the submission.
        fault: why the upload cannot be accepted whatever the rules say, empty if it can.
    """

    ticket: str
    team: int | None
    arrived: datetime
    sha256: str = ""
    size: int = 0
    fields: Mapping[str, str] = field(default_factory=dict)
    selected: bool = False
    fault: str = ""


def new_ticket() -> str:
    """A random id of an upload."""
    return secrets.token_hex(16)


def is_ticket(name: str) -> bool:
    """Whether a name is a ticket, which may become a file name."""
    return _TICKET.fullmatch(name) is not None


def new_token() -> str:
    """A random token of a team, 256 bits."""
    return f"avsb_{secrets.token_hex(32)}"


def hash_token(token: str) -> str:
    """The SHA-256 of a token, which is stored in its place.

    A token has 256 random bits, so that a slow hash would add nothing.
    """
    return hashlib.sha256(token.encode()).hexdigest()


def is_token(token: str) -> bool:
    """Whether a text has the form of a token."""
    return _TOKEN.fullmatch(token) is not None


def sign(token_hash: str, ticket: str, values: dict[str, Any]) -> str:
    """The signature (HMAC-SHA256) of a submission in the inbox.

    It covers the ticket, the team, the hash of the file and all fields, so that an inbox holds no secret, and
    a copied submission cannot be changed.
    """
    message = canonical({"ticket": ticket, **values})
    return hmac.new(bytes.fromhex(token_hash), message.encode(), hashlib.sha256).hexdigest()


def is_signed(signature: str, token_hash: str, ticket: str, values: dict[str, Any]) -> bool:
    """Whether a signature is that of the values; compared in constant time."""
    return hmac.compare_digest(signature.encode(), sign(token_hash, ticket, values).encode())


def check_name(name: str, snapshot: Snapshot, team: int | None = None) -> str:
    """Return the name of a team without surrounding space.

    Raises:
        UsageError: it is empty, too long, not printable, or the name of another team.
    """
    name = " ".join(name.split())
    if not 1 <= len(name) <= MAX_NAME or printable(name) != name or not name.isprintable():
        raise UsageError(f"The name of a team has 1 to {MAX_NAME} printable characters.")
    if snapshot.find_team(name) not in (None, team):
        raise UsageError(f"There is a team '{name}' already; choose another name.")
    return name


def check_fields(definition: Definition, fields: Mapping[str, str]) -> str:
    """The fault of the required fields, empty if there is none."""
    for name in definition.required:
        if not fields.get(name, "").strip():
            return f"The field '{name}' is required; pass --field {name}=TEXT."
    for name, value in fields.items():
        if name not in definition.required:
            return f"The field '{printable(name)[:40]}' is not a field of this competition."
        if len(value) > MAX_FIELD or not value.isprintable():
            return f"The field '{name}' must be one line of at most {MAX_FIELD} printable characters."
    return ""


def refusal(definition: Definition, snapshot: Snapshot, arrival: Arrival) -> str:
    """Why an arrival is refused, one sentence; empty if it is accepted.

    Limits count the submissions of the team that are scored, pending or failed; invalid files do not count.
    """
    if arrival.fault:
        return arrival.fault
    if arrival.team is None:
        return "The team or its token is not valid."
    if arrival.size > definition.limits.megabytes * 1_000_000:
        return f"The file has more than {definition.limits.megabytes} MB."
    if arrival.arrived < definition.phases[0].start:
        return f"The competition starts at {_short(definition.phases[0].start)}."
    if definition.phase_at(arrival.arrived) is None:
        following = next((one for one in definition.phases if one.start > arrival.arrived), None)
        if following is not None:
            return f"There is no phase at this time; '{following.name}' starts at {_short(following.start)}."
        if definition.late == "refuse":
            return f"The competition ended at {_short(definition.end)}; late submissions are refused."
    fault = check_fields(definition, arrival.fields)
    if fault:
        return fault
    return _copy(snapshot, arrival) or _over_limit(definition, snapshot, arrival)


def _copy(snapshot: Snapshot, arrival: Arrival) -> str:
    for one in snapshot.submissions.values():
        if one.sha256 != arrival.sha256 or one.status == "invalid":
            continue
        if one.team == arrival.team:
            return f"The file is the same as that of submission {one.number}; duplicates are refused."
        if arrival.sha256 != snapshot.sample:
            return "Another team has submitted the same file; copies are refused."
    return ""


def _over_limit(definition: Definition, snapshot: Snapshot, arrival: Arrival) -> str:
    assert arrival.team is not None
    counted = [one for one in snapshot.of_team(arrival.team) if one.status != "invalid"]
    limits = definition.limits
    if len(counted) >= limits.total:
        return f"The team has made all of its {limits.total} submissions."
    today = [one for one in counted if one.arrived.date() == arrival.arrived.date()]
    if len(today) >= limits.per_day:
        return f"The team has made its {limits.per_day} submissions of this day (UTC)."
    return ""


def _short(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
