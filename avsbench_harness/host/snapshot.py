"""The state of a competition as it follows from the entries of its log."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from avsbench_harness.host.definition import SELECTED, utc
from avsbench_harness.host.log import START, Entry

#: pending: not scored yet; invalid: refused by the reader; failed: the scoring itself failed.
Status = Literal["pending", "scored", "invalid", "failed"]


@dataclass(frozen=True)
class Submission:
    """An accepted submission.

    Attributes:
        number: 1, 2, ... in the order of acceptance.
        ticket: random id of the upload, 32 hexadecimal digits.
        team: number of the team.
        sha256: hash of the file.
        size: bytes of the file.
        arrived: time of arrival.
        phase: name of the phase, empty if the submission is late.
        fields: the required fields by name, such as paper and code.
        status: see :data:`Status`.
        reason: why it is invalid or failed.
        scores: public scores by version.
        commitments: commitment to the private scores by version.
        log: number and digest of the last log entry about it.
    """

    number: int
    ticket: str
    team: int
    sha256: str
    size: int
    arrived: datetime
    phase: str
    fields: dict[str, str]
    status: Status = "pending"
    reason: str = ""
    scores: dict[int, dict[str, Any]] = field(default_factory=dict)
    commitments: dict[int, str] = field(default_factory=dict)
    log: tuple[int, str] = (0, "")

    @property
    def late(self) -> bool:
        """Whether it arrived after the end and is not ranked."""
        return not self.phase


@dataclass(frozen=True)
class Refusal:
    """A submission that was refused on arrival.

    Attributes:
        team: ``None`` if it was not authenticated.
        log: number and digest of its log entry.
    """

    ticket: str
    team: int | None
    arrived: datetime
    reason: str
    log: tuple[int, str] = (0, "")


@dataclass(frozen=True)
class Version:
    """A version of the scores: ground truth, protocol and metrics.

    Attributes:
        number: 1, 2, ...
        solution: fingerprint of the ground truth.
        sha256: hash of the solution file.
    """

    number: int
    solution: str
    sha256: str
    protocol: str
    metrics: tuple[str, ...]
    higher_is_better: bool
    note: str = ""


@dataclass(frozen=True)
class Snapshot:
    """The state after an entry of the log.

    Attributes:
        seq, digest: of that entry.
        definition: the published keys of the definition.
        sample: hash of the sample submission, which every team may hand in.
        teams: names by number.
        submissions: by number.
        refusals: submissions that were refused on arrival.
        by_ticket: number of the submission, or index in ``refusals`` as a negative number, by ticket.
        selected: numbers of the selected submissions of a team, the oldest selection first.
        versions: versions of the scores.
        revealed: values of the entry of the reveal, ``None`` before it.
    """

    seq: int = 0
    digest: str = START
    definition: dict[str, Any] = field(default_factory=dict)
    sample: str = ""
    teams: dict[int, str] = field(default_factory=dict)
    submissions: dict[int, Submission] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()
    by_ticket: dict[str, int] = field(default_factory=dict)
    selected: dict[int, tuple[int, ...]] = field(default_factory=dict)
    versions: tuple[Version, ...] = ()
    revealed: dict[str, Any] | None = None

    def outcome(self, ticket: str) -> Submission | Refusal | None:
        """The submission or refusal of a ticket, ``None`` if it is not known."""
        place = self.by_ticket.get(ticket)
        if place is None:
            return None
        return self.submissions[place] if place > 0 else self.refusals[-place - 1]

    def of_team(self, team: int) -> list[Submission]:
        """The submissions of a team in the order of acceptance."""
        return [one for one in self.submissions.values() if one.team == team]

    def find_team(self, name: str) -> int | None:
        """The team with that name; case does not matter."""
        wanted = name.casefold()
        return next((team for team, known in self.teams.items() if known.casefold() == wanted), None)

    def pending(self, version: int) -> list[Submission]:
        """The submissions that have no scores of a version yet, in the order of acceptance."""
        return [
            one
            for one in self.submissions.values()
            if one.status in ("pending", "scored") and version not in one.scores
        ]

    @property
    def complete_version(self) -> int:
        """The newest version in which every scored submission has scores."""
        scored = [one for one in self.submissions.values() if one.status == "scored"]
        for version in reversed(self.versions):
            if all(version.number in one.scores for one in scored):
                return version.number
        return 1

    def after(self, entries: Iterable[Entry]) -> Snapshot:
        """The state after further entries; this one does not change."""
        entries = list(entries)
        if not entries:
            return self
        state = _State(
            replace(
                self,
                teams=dict(self.teams),
                submissions=dict(self.submissions),
                by_ticket=dict(self.by_ticket),
                selected=dict(self.selected),
            )
        )
        for entry in entries:
            values = {**entry.values, "log": (entry.seq, entry.digest)}
            getattr(state, f"on_{values['kind']}")(values)
        return replace(state.now, seq=entries[-1].seq, digest=entries[-1].digest)


class _State:
    """Applies entries, one method per kind."""

    def __init__(self, start: Snapshot) -> None:
        self.now = start

    def on_opened(self, values: dict[str, Any]) -> None:
        self.now = replace(self.now, definition=values["definition"], sample=values["sample"])

    def on_definition(self, values: dict[str, Any]) -> None:
        self.now = replace(self.now, definition=values["definition"])

    def on_team(self, values: dict[str, Any]) -> None:
        self.now.teams[values["team"]] = values["name"]

    def on_renamed(self, values: dict[str, Any]) -> None:
        self.now.teams[values["team"]] = values["name"]

    def on_token(self, values: dict[str, Any]) -> None:
        pass  # recorded for the host; the state does not change

    def on_version(self, values: dict[str, Any]) -> None:
        version = Version(
            number=values["version"],
            solution=values["solution"],
            sha256=values["sha256"],
            protocol=values["protocol"],
            metrics=tuple(values["metrics"]),
            higher_is_better=values["higher_is_better"],
            note=values["note"],
        )
        self.now = replace(self.now, versions=(*self.now.versions, version))

    def on_received(self, values: dict[str, Any]) -> None:
        number = values["submission"]
        self.now.submissions[number] = Submission(
            number=number,
            ticket=values["ticket"],
            team=values["team"],
            sha256=values["sha256"],
            size=values["size"],
            arrived=utc(values["arrived"]),
            phase=values["phase"],
            fields=values["fields"],
            log=values["log"],
        )
        self.now.by_ticket[values["ticket"]] = number

    def on_refused(self, values: dict[str, Any]) -> None:
        refusal = Refusal(
            values["ticket"], values["team"], utc(values["arrived"]), values["reason"], values["log"]
        )
        self.now = replace(self.now, refusals=(*self.now.refusals, refusal))
        self.now.by_ticket[refusal.ticket] = -len(self.now.refusals)

    def on_scored(self, values: dict[str, Any]) -> None:
        number, version = values["submission"], values["version"]
        one = self.now.submissions[number]
        self.now.submissions[number] = replace(
            one,
            status="scored",
            reason="",
            scores={**one.scores, version: values["public"]},
            commitments={**one.commitments, version: values["commitment"]},
            log=values["log"],
        )

    def on_invalid(self, values: dict[str, Any]) -> None:
        self._end(values, "invalid")

    def on_failed(self, values: dict[str, Any]) -> None:
        self._end(values, "failed")

    def on_retried(self, values: dict[str, Any]) -> None:
        one = self.now.submissions[values["submission"]]
        status: Status = "scored" if one.scores else "pending"
        self.now.submissions[one.number] = replace(one, status=status, reason="", log=values["log"])

    def on_selected(self, values: dict[str, Any]) -> None:
        team, number = values["team"], values["submission"]
        kept = [one for one in self.now.selected.get(team, ()) if one != number]
        if values["selected"]:
            kept = [*kept, number][-SELECTED:]
        self.now.selected[team] = tuple(kept)

    def on_revealed(self, values: dict[str, Any]) -> None:
        self.now = replace(self.now, revealed=values)

    def _end(self, values: dict[str, Any], status: Status) -> None:
        one = self.now.submissions[values["submission"]]
        self.now.submissions[one.number] = replace(
            one, status=status, reason=values["reason"], log=values["log"]
        )
