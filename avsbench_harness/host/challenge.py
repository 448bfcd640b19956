"""An open competition: its folder, its database, and every change of its state.

The folder holds ``challenge.yaml``, ``inbox/`` and ``receipts/``, and in ``private/`` what only the host may
read: the database, ground truth, and the submitted files. Every change is one transaction that appends to the
log; what follows from the log (receipts, boards) is written afterwards and again if it is missing.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import Connection, insert, select, update

from avsbench_harness import __version__
from avsbench_harness.errors import UsageError, one_line
from avsbench_harness.files import read_json, sha256_file, sync, write_json
from avsbench_harness.host.database import PRIVATE_SCORES, TEAMS, Database, entries_after
from avsbench_harness.host.definition import FROZEN, Definition, check_metrics, iso, read_definition
from avsbench_harness.host.ground_truth import check_same_parts, pack_ground_truth, write_sample
from avsbench_harness.host.log import Entry, canonical, commit
from avsbench_harness.host.rules import Arrival, check_name, hash_token, new_token, refusal
from avsbench_harness.host.snapshot import Refusal, Snapshot, Submission, Version
from avsbench_harness.host.transaction import Clock, Transaction
from avsbench_harness.submission import read_solution


def now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


class Challenge:
    """An open competition.

    Args:
        folder: the folder with ``challenge.yaml``.
        database: SQLAlchemy URL; defaults to a SQLite file in ``private/``.
        clock: returns the time.
        strict: whether to read the state; without, a competition with a damaged log can be audited.

    Raises:
        UsageError: the definition is not valid, or changes what cannot change.
    """

    def __init__(
        self, folder: Path, database: str | None = None, clock: Clock = now, *, strict: bool = True
    ) -> None:
        self.folder = folder
        self.clock = clock
        self.definition: Definition = read_definition(folder)
        self.private.mkdir(mode=0o700, parents=True, exist_ok=True)
        for place in (self.files, self.locks, self.inbox, self.receipts):
            place.mkdir(exist_ok=True)
        self.database = Database(database or f"sqlite:///{self.private.absolute() / 'state.sqlite'}")
        self._known = Snapshot()
        self._lock = threading.Lock()
        if strict:
            self._open()

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def __enter__(self) -> Challenge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def private(self) -> Path:
        """The folder that only the host may read."""
        return self.folder / "private"

    @property
    def files(self) -> Path:
        """The folder with the submitted files, named by their tickets."""
        return self.private / "submissions"

    @property
    def locks(self) -> Path:
        """The folder with the locks of running scorings."""
        return self.private / "locks"

    @property
    def inbox(self) -> Path:
        """The folder in which submissions arrive."""
        return self.folder / "inbox"

    @property
    def receipts(self) -> Path:
        """The folder with the receipts of all submissions."""
        return self.folder / "receipts"

    def file_of(self, ticket: str) -> Path:
        """The stored file of a submission."""
        return self.files / f"{ticket}.npz"

    def solution_of(self, version: int) -> Path:
        """The ground truth of a version of the scores."""
        return self.private / f"solution-{version}.npz"

    @property
    def sample(self) -> Path:
        """The sample submission: all background."""
        return self.private / "sample_submission.npz"

    # Reading

    def snapshot(self) -> Snapshot:
        """The present state."""
        with self.database.reading() as connection:
            return self._catch_up(connection)

    def entries(self) -> list[Entry]:
        """All entries of the log."""
        with self.database.reading() as connection:
            return entries_after(connection, 0)

    def private_scores(self, version: int) -> dict[int, tuple[str, dict[str, Any]]]:
        """(nonce, private scores) by submission; host only."""
        with self.database.reading() as connection:
            rows = connection.execute(select(PRIVATE_SCORES).where(PRIVATE_SCORES.c.version == version))
            return {row.submission: (row.nonce, json.loads(row.scores)) for row in rows}

    def token_hash(self, team: int) -> str:
        """The hash of a team's token."""
        with self.database.reading() as connection:
            found = connection.execute(select(TEAMS.c.token).where(TEAMS.c.team == team)).scalar()
        return str(found)

    def authenticate(self, token: str) -> int | None:
        """The team of a token, or ``None``; looked up by the hash, which reveals nothing about the token."""
        with self.database.reading() as connection:
            found = connection.execute(select(TEAMS.c.team).where(TEAMS.c.token == hash_token(token)))
            team = found.scalar()
        return None if team is None else int(team)

    # Changes

    def add_team(self, name: str, contact: str = "") -> str:
        """Add a team and return its token, of which only the hash is stored."""
        if self.definition.teams.contact and not contact.strip():
            raise UsageError("This competition requires a contact of every team; pass --contact.")
        token = new_token()
        with self.writing() as tx:
            name = check_name(name, tx.snapshot)
            team = len(tx.snapshot.teams) + 1
            tx.append("team", team=team, name=name)
            values = {"team": team, "token": hash_token(token), "contact": one_line(contact, 200)}
            tx.connection.execute(insert(TEAMS).values(values))
        return token

    def rename_team(self, name: str, new: str) -> None:
        """Rename a team, if the rules allow it."""
        if not self.definition.teams.rename:
            raise UsageError("The rules of this competition do not allow to rename a team.")
        with self.writing() as tx:
            team = _team(tx.snapshot, name)
            tx.append("renamed", team=team, name=check_name(new, tx.snapshot, team))

    def renew_token(self, name: str) -> str:
        """Replace the token of a team; the old one becomes invalid."""
        token = new_token()
        with self.writing() as tx:
            team = _team(tx.snapshot, name)
            tx.append("token", team=team)
            tx.connection.execute(update(TEAMS).where(TEAMS.c.team == team).values(token=hash_token(token)))
        return token

    def receive(self, arrival: Arrival) -> Submission | Refusal:
        """Accept or refuse an arrival whose file is stored; a known ticket changes nothing."""
        with self.writing() as tx:
            known = tx.snapshot.outcome(arrival.ticket)
            if known is not None:
                return known
            reason = refusal(self.definition, tx.snapshot, arrival)
            common = {"ticket": arrival.ticket, "team": arrival.team, "arrived": iso(arrival.arrived)}
            if reason:
                tx.append("refused", **common, reason=reason)
            else:
                phase = self.definition.phase_at(arrival.arrived)
                number = len(tx.snapshot.submissions) + 1
                tx.append(
                    "received",
                    **common,
                    submission=number,
                    sha256=arrival.sha256,
                    size=arrival.size,
                    phase="" if phase is None else phase.name,
                    fields=dict(arrival.fields),
                )
                if arrival.selected:
                    tx.append("selected", team=arrival.team, submission=number, selected=True)
        outcome = self.snapshot().outcome(arrival.ticket)
        assert outcome is not None
        return outcome

    def select(self, team: int, number: int, selected: bool = True) -> None:
        """Select a submission of a team, or cancel the selection; the last two selections count.

        Raises:
            UsageError: the team has no such submission, or the competition has ended.
        """
        if self.clock() >= self.definition.end:
            raise UsageError("The competition has ended; selections cannot change any more.")
        with self.writing() as tx:
            one = tx.snapshot.submissions.get(number)
            if one is None or one.team != team:
                raise UsageError(f"There is no submission {number} of this team.")
            tx.append("selected", team=team, submission=number, selected=selected)

    def record_scores(
        self, number: int, version: int, public: dict[str, Any], private: dict[str, Any]
    ) -> bool:
        """Store the scores of a submission; ``False`` if they are stored already."""
        with self.writing() as tx:
            one = tx.snapshot.submissions[number]
            if version in one.scores or one.status in ("invalid", "failed"):
                return False
            nonce, digest = commit(private)
            tx.connection.execute(
                insert(PRIVATE_SCORES).values(
                    submission=number, version=version, nonce=nonce, scores=canonical(private)
                )
            )
            tx.append("scored", submission=number, version=version, public=public, commitment=digest)
        return True

    def record_failure(self, number: int, version: int, reason: str, *, invalid: bool) -> bool:
        """Store that a submission is invalid, or that its scoring failed; ``False`` if it has ended."""
        with self.writing() as tx:
            one = tx.snapshot.submissions[number]
            if one.status in ("invalid", "failed") or version in one.scores:
                return False
            tx.append("invalid" if invalid else "failed", submission=number, reason=one_line(reason))
        return True

    def retry(self) -> int:
        """Make failed submissions pending again and return their number."""
        with self.writing() as tx:
            failed = [one.number for one in tx.snapshot.submissions.values() if one.status == "failed"]
            for number in failed:
                tx.append("retried", submission=number)
        return len(failed)

    def add_version(self, solution: Path | None, note: str) -> Version | None:
        """Begin a version of the scores with another ground truth, protocol or metrics.

        Args:
            solution: the fixed solution file; ``None`` packs the data set of the definition again.
            note: why, for the log.

        Returns:
            the new version, or ``None`` if nothing differs from the newest one.

        Raises:
            UsageError: the ground truth has other clips or other private clips.
        """
        check_metrics(self.definition.task, self.definition.protocol, self.definition.metrics)
        with FileLock(self.private / "rescore.lock"):
            return self._add_version(solution, note)

    def _add_version(self, solution: Path | None, note: str) -> Version | None:
        definition = self.definition
        candidate = self.private / "solution-candidate.npz"
        if solution is None:
            pack_ground_truth(definition, candidate)
        else:
            shutil.copyfile(solution, candidate)
            candidate.chmod(0o600)
        check_same_parts(self.solution_of(1), candidate)
        with self.writing() as tx:
            newest = tx.snapshot.versions[-1]
            values = _version_values(definition, candidate)
            same = (newest.solution, newest.protocol, newest.metrics, newest.higher_is_better)
            if same == (
                values["solution"],
                definition.protocol,
                definition.metrics,
                definition.higher_is_better,
            ):
                candidate.unlink()
                return None
            number = newest.number + 1
            sync(candidate)
            candidate.replace(self.solution_of(number))
            sync(self.private)
            tx.append("version", version=number, note=one_line(note), **values)
        return self.snapshot().versions[-1]

    def record_reveal(self, version: int, board: dict[str, Any], opened: dict[str, Any]) -> None:
        """Publish the private board.

        Raises:
            UsageError: it is published already.
        """
        with self.writing() as tx:
            if tx.snapshot.revealed is not None:
                raise UsageError(f"The private board was published at {tx.snapshot.revealed['time']}.")
            tx.append("revealed", version=version, board=board, opened=opened)

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        """A transaction on the present state."""
        with self.database.writing() as connection:
            yield Transaction(connection, self._catch_up(connection), self.clock)

    # Opening

    def _catch_up(self, connection: Connection) -> Snapshot:
        with self._lock:
            self._known = self._known.after(entries_after(connection, self._known.seq))
            return self._known

    def _open(self) -> None:
        """Pack the ground truth of a new competition; record a changed definition."""
        published = self.definition.published()
        snapshot = self.snapshot()
        if snapshot.seq == 0:
            self._begin(published)
            return
        if read_json(self.private / "frozen.json") != self._frozen():
            raise UsageError(
                f"{', '.join(FROZEN)} of {self.folder} cannot change once the competition is open; restore "
                "them in challenge.yaml, or create a new competition."
            )
        if snapshot.definition != published:
            with self.writing() as tx:
                if tx.snapshot.definition != published:
                    tx.append("definition", definition=published)

    def _begin(self, published: dict[str, Any]) -> None:
        check_metrics(self.definition.task, self.definition.protocol, self.definition.metrics)
        first = self.solution_of(1)
        if not first.is_file():
            pack_ground_truth(self.definition, first)
        write_sample(first, self.sample)
        write_json(self.private / "frozen.json", self._frozen())
        with self.writing() as tx:
            if tx.snapshot.seq:
                return  # another process has opened it meanwhile
            tx.append("opened", definition=published, sample=sha256_file(self.sample), harness=__version__)
            tx.append("version", version=1, note="", **_version_values(self.definition, first))

    def _frozen(self) -> dict[str, Any]:
        """The keys that cannot change; not in the log, because a seed can be guessed from its hash."""
        values = self.definition.model_dump(mode="json")
        return {key: values[key] for key in FROZEN}


def _version_values(definition: Definition, solution: Path) -> dict[str, Any]:
    with read_solution(solution) as opened:
        fingerprint = opened.fingerprint
    return {
        "solution": fingerprint,
        "sha256": sha256_file(solution),
        "protocol": definition.protocol,
        "metrics": list(definition.metrics),
        "higher_is_better": definition.higher_is_better,
    }


def _team(snapshot: Snapshot, name: str) -> int:
    team = snapshot.find_team(name)
    if team is None:
        raise UsageError(f"There is no team '{one_line(name, 100)}'; `avsb challenge team list` lists them.")
    return team
