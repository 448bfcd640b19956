"""The inbox: submissions as folders, written by participants and taken in by the host.

A submission is a folder named by its ticket with ``submission.npz`` and ``submission.json`` (team, hash of
the file, fields, signature). It is written under another name and renamed. The host copies the file, appends
to the log, and then removes the folder: a kill at any point loses nothing, and a ticket is taken in once.
The time of arrival is the latest change of folder and files according to the host's file system, which their
owner cannot set.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from filelock import FileLock
from pydantic import Field

from avsbench_harness.errors import AvsbError, MissingDataError, UsageError
from avsbench_harness.files import atomic_write, parse_json, sha256_file, sync, write_json
from avsbench_harness.host.challenge import Challenge
from avsbench_harness.host.receipts import write_receipt, write_receipts
from avsbench_harness.host.rules import (
    MAX_FIELD,
    Arrival,
    hash_token,
    is_signed,
    is_ticket,
    is_token,
    new_ticket,
    sign,
)
from avsbench_harness.host.scoring_queue import score_pending
from avsbench_harness.host.snapshot import Refusal, Snapshot, Submission
from avsbench_harness.schema import Schema

logger = logging.getLogger(__name__)

#: Longest ``submission.json``, bytes.
MAX_FORM = 64 * 1024

_CHUNK = 1 << 20


class Form(Schema):
    """The content of ``submission.json``."""

    format: Literal[1]
    team: Annotated[str, Field(max_length=200)]
    sha256: Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
    selected: bool
    fields: Annotated[dict[str, Annotated[str, Field(max_length=MAX_FIELD)]], Field(max_length=20)]
    signature: Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]

    def signed(self) -> dict[str, Any]:
        """The values that the signature covers."""
        return self.model_dump(exclude={"signature"})


def submit(
    inbox: Path, file: Path, team: str, token: str, fields: Mapping[str, str], *, selected: bool = False
) -> str:
    """Write a submission into an inbox and return its ticket.

    Args:
        inbox: an existing folder.
        file: the submission.
        team: name of the team.
        token: its token, which signs the submission and is not written.
        fields: required fields by name.
        selected: whether the team selects the submission.

    Raises:
        UsageError: the token has not the form of a token.
        MissingDataError: a file or the inbox is missing.
    """
    token = token.strip()
    if not is_token(token):
        raise UsageError("The token is not one that `avsb challenge team add` prints: avsb_ and 64 digits.")
    if not inbox.is_dir():
        raise MissingDataError(f"There is no folder {inbox}; pass the inbox of the competition by --inbox.")
    if not file.is_file():
        raise MissingDataError(f"There is no file {file}.")
    ticket = new_ticket()
    folder = inbox / f".{ticket}"
    folder.mkdir()
    try:
        shutil.copyfile(file, folder / "submission.npz")
        sync(folder / "submission.npz")
        values = {
            "format": 1,
            "team": team,
            "sha256": sha256_file(folder / "submission.npz"),
            "selected": selected,
            "fields": dict(fields),
        }
        write_json(
            folder / "submission.json", {**values, "signature": sign(hash_token(token), ticket, values)}
        )
        folder.rename(inbox / ticket)
        sync(inbox)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return ticket


@dataclass(frozen=True)
class Ingested:
    """The result of :func:`ingest`.

    Attributes:
        arrived: submissions and refusals that were taken in.
        scored: submissions that were scored.
    """

    arrived: list[Submission | Refusal]
    scored: list[Submission]


def ingest(challenge: Challenge, inbox: Path | None = None) -> Ingested:
    """Take in everything new, score everything pending, and write the receipts.

    Args:
        challenge: the competition.
        inbox: the folder; defaults to that of the competition.
    """
    arrived = take_in(challenge, inbox or challenge.inbox)
    scored = []
    for one in score_pending(challenge):
        scored.append(one)
        write_receipt(challenge, challenge.snapshot(), one.ticket)
    write_receipts(challenge)
    return Ingested(arrived, scored)


def take_in(challenge: Challenge, inbox: Path) -> list[Submission | Refusal]:
    """Take in everything new in an inbox, in the order of arrival; one process at a time."""
    with FileLock(challenge.locks / "ingest.lock"):
        _sweep(challenge)
        found = []
        for folder in _folders(inbox):
            found.append((arrival_time(folder), folder))
        outcomes = []
        for arrived, folder in sorted(found):
            known = challenge.snapshot().outcome(folder.name)
            if known is None:
                outcomes.append(_register(challenge, folder, arrived))
            shutil.rmtree(folder)
        return outcomes


def arrival_time(folder: Path) -> datetime:
    """The latest change of a folder and its files, as the host's file system recorded it."""
    times = [folder.lstat().st_ctime_ns]
    times += [path.lstat().st_ctime_ns for path in folder.iterdir()]
    return datetime.fromtimestamp(max(times) / 1e9, UTC)


def _folders(inbox: Path) -> list[Path]:
    if not inbox.is_dir():
        raise MissingDataError(f"There is no folder {inbox}.")
    found = []
    for path in sorted(inbox.iterdir()):
        if path.name.startswith("."):
            continue  # still being written
        if is_ticket(path.name) and stat.S_ISDIR(path.lstat().st_mode):
            found.append(path)
        else:
            logger.warning(f"{path} was not written by `avsb challenge submit`; it is left alone.")
    return found


def _register(challenge: Challenge, folder: Path, arrived: datetime) -> Submission | Refusal:
    """Copy the file of a submission and decide about it."""
    arrival = _read(challenge, folder, arrived)
    outcome = challenge.receive(arrival)
    if isinstance(outcome, Refusal):
        challenge.file_of(folder.name).unlink(missing_ok=True)
    return outcome


def _read(challenge: Challenge, folder: Path, arrived: datetime) -> Arrival:
    ticket = folder.name
    try:
        values = parse_json(_read_form(folder / "submission.json"), "submission.json")
        form = Form.parse(values, "submission.json")
    except AvsbError as error:
        return Arrival(ticket, None, arrived, fault=str(error))
    snapshot = challenge.snapshot()
    team = _authenticate(challenge, snapshot, form, ticket)
    if team is None:
        return Arrival(ticket, None, arrived)
    limit = challenge.definition.limits.megabytes * 1_000_000
    try:
        digest, size = copy_bounded(folder / "submission.npz", challenge.file_of(ticket), limit)
    except UsageError as error:
        return Arrival(ticket, team, arrived, fault=str(error))
    fault = "" if digest == form.sha256 else "The file is not the one that was signed; submit it again."
    return Arrival(ticket, team, arrived, digest, size, form.fields, form.selected, fault)


def _authenticate(challenge: Challenge, snapshot: Snapshot, form: Form, ticket: str) -> int | None:
    team = snapshot.find_team(form.team)
    if team is None or not is_signed(form.signature, challenge.token_hash(team), ticket, form.signed()):
        return None
    return team


def _read_form(path: Path) -> bytes:
    with _open_regular(path) as file:
        content: bytes = file.read(MAX_FORM + 1)
    if len(content) > MAX_FORM:
        raise UsageError(f"submission.json has more than {MAX_FORM >> 10} KiB.")
    return content


def copy_bounded(source: Path, target: Path, limit: int) -> tuple[str, int]:
    """Copy a stranger's file of at most ``limit`` bytes; return its SHA-256 and its size.

    Raises:
        UsageError: it is no regular file (a link is none), or too large.
    """
    digest, size = hashlib.sha256(), 0
    with _open_regular(source) as file, atomic_write(target) as copy:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            if size > limit:
                raise UsageError(f"The file has more than {limit // 1_000_000} MB.")
            digest.update(chunk)
            copy.write(chunk)
    return digest.hexdigest(), size


def _open_regular(path: Path) -> Any:
    """Open a regular file; a link, a pipe or a device is refused without being opened for long."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise UsageError(f"{path.name} cannot be read ({error.strerror}).") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageError(f"{path.name} is not a regular file.")
    return os.fdopen(descriptor, "rb")


def _sweep(challenge: Challenge) -> None:
    """Remove stored files without an accepted submission, which killed processes have left."""
    snapshot = challenge.snapshot()
    for path in challenge.files.glob("*.npz"):
        if isinstance(snapshot.outcome(path.stem), Refusal):
            path.unlink(missing_ok=True)


def read_token(file: Path | None) -> str:
    """The token of a team: from a file, else from ``AVSB_CHALLENGE_TOKEN``.

    Raises:
        UsageError: there is none.
    """
    if file is not None:
        return file.read_text(encoding="utf-8").strip()
    token = os.environ.get("AVSB_CHALLENGE_TOKEN", "")
    if not token:
        raise UsageError("The token of the team is missing: set AVSB_CHALLENGE_TOKEN, or pass --token-file.")
    return token
