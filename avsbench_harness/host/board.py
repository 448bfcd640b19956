"""Public and private boards: pure functions of the state and of the private scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from avsbench_harness.errors import UsageError
from avsbench_harness.host.challenge import Challenge
from avsbench_harness.host.definition import Definition, iso
from avsbench_harness.host.snapshot import Snapshot, Submission, Version

#: Scores of one part: metrics, 95 % intervals and number of clips, as in a result of the worker.
PartScores = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One team on a board.

    Attributes:
        rank: 1 for the best; shared ranks as the definition says.
        team: name of the team.
        submission: number of the submission that counts.
        method: name of the method in its header.
        metrics, intervals: scores and 95 % intervals by metric.
        arrived: time of arrival.
        submissions: number of the team's ranked submissions.
        public_rank: rank on the public board; on the private board alone.
    """

    rank: int
    team: str
    submission: int
    method: str
    metrics: Mapping[str, float | None]
    intervals: Mapping[str, list[float] | None]
    arrived: str
    submissions: int
    public_rank: int | None = None

    @property
    def change(self) -> int | None:
        """Ranks gained on the private board, negative if lost."""
        return None if self.public_rank is None else self.public_rank - self.rank


@dataclass(frozen=True)
class Board:
    """A board.

    Attributes:
        part: ``public`` or ``private``.
        version: version of the scores.
        clips: number of scored clips, ``None`` without rows.
        rows: the teams, the best first.
    """

    title: str
    part: str
    version: int
    protocol: str
    metrics: tuple[str, ...]
    clips: int | None
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON values; the private board has the change of each rank."""
        values = asdict(self)
        values["metrics"] = list(self.metrics)
        values["rows"] = [
            {**asdict(row), **({} if row.public_rank is None else {"change": row.change})}
            for row in self.rows
        ]
        if self.part == "public":
            for row in values["rows"]:
                del row["public_rank"]
        return values


def public_board(definition: Definition, snapshot: Snapshot, version: int | None = None) -> Board:
    """The public board: the public score of the submission that counts.

    Of two selected submissions the one with the better public score is shown.
    """
    chosen = snapshot.versions[(version or snapshot.complete_version) - 1]

    def score(one: Submission) -> PartScores:
        return one.scores[chosen.number]

    return _board(definition, snapshot, chosen, "public", score)


def private_board(
    definition: Definition,
    snapshot: Snapshot,
    private: Mapping[int, tuple[str, PartScores]],
    version: int | None = None,
) -> Board:
    """The private board, with the ranks of the public board.

    The submission that counts was chosen without the private scores; of two selected ones the one with the
    better private score counts.
    """
    chosen = snapshot.versions[(version or snapshot.complete_version) - 1]

    def score(one: Submission) -> PartScores:
        return private[one.number][1]

    board = _board(definition, snapshot, chosen, "private", score)
    before = {row.team: row.rank for row in public_board(definition, snapshot, chosen.number).rows}
    return replace(board, rows=tuple(replace(row, public_rank=before[row.team]) for row in board.rows))


def challenge_board(challenge: Challenge, part: str = "public") -> Board:
    """A board of an open competition; the private one only after the reveal.

    Raises:
        UsageError: the private board is not published yet, or the part is unknown.
    """
    snapshot = challenge.snapshot()
    if part == "public":
        return public_board(challenge.definition, snapshot)
    if part != "private":
        raise UsageError(f"There is no board '{part}'; pass public or private.")
    if snapshot.revealed is None:
        raise UsageError("The private board is not published yet; `avsb challenge reveal` publishes it.")
    version = snapshot.complete_version
    return private_board(challenge.definition, snapshot, challenge.private_scores(version), version)


def reveal(challenge: Challenge, *, early: bool = False) -> Board:
    """Publish the private board once, and open the commitments of its submissions in the log.

    Args:
        challenge: the competition.
        early: also before the end of the last phase.

    Raises:
        UsageError: the competition has not ended, submissions are pending, or the board is published.
    """
    if challenge.clock() < challenge.definition.end and not early:
        raise UsageError(
            f"The competition ends at {iso(challenge.definition.end)}; reveal the private board afterwards, "
            "or pass --early."
        )
    snapshot = challenge.snapshot()
    version = snapshot.versions[-1].number
    if snapshot.pending(version):
        raise UsageError("Some submissions have no scores yet; run `avsb challenge ingest` first.")
    private = challenge.private_scores(version)
    board = private_board(challenge.definition, snapshot, private, version)
    opened = {
        str(row.submission): {"nonce": private[row.submission][0], "scores": dict(private[row.submission][1])}
        for row in board.rows
    }
    challenge.record_reveal(version, board.to_json(), opened)
    return board


def moved_rows(before: Board, after: Board) -> list[dict[str, Any]]:
    """The rows of which rank or first metric differ between two boards."""
    metric, other = before.metrics[0], after.metrics[0]
    old = {row.team: row for row in before.rows}
    new = {row.team: row for row in after.rows}
    moved = []
    for team in dict.fromkeys([*old, *new]):
        one, two = old.get(team), new.get(team)
        values = {
            "team": team,
            "rank_before": None if one is None else one.rank,
            "rank_after": None if two is None else two.rank,
            "before": None if one is None else one.metrics[metric],
            "after": None if two is None else two.metrics[other],
        }
        if (values["rank_before"], values["before"]) != (values["rank_after"], values["after"]):
            moved.append(values)
    return moved


def counted(
    definition: Definition, snapshot: Snapshot, team: int, version: Version
) -> tuple[Submission, ...]:
    """The submissions of a team that count; several only if the team has selected several."""
    ranked = [one for one in snapshot.of_team(team) if version.number in one.scores and not one.late]
    if not ranked:
        return ()
    if definition.counts == "last":
        return (max(ranked, key=lambda one: (one.arrived, one.number)),)
    if definition.counts == "selected":
        selected = [one for one in ranked if one.number in snapshot.selected.get(team, ())]
        if selected:
            return tuple(selected)
    return (min(ranked, key=lambda one: (_order(version, one.scores[version.number]), one.number)),)


def _board(
    definition: Definition,
    snapshot: Snapshot,
    version: Version,
    part: str,
    score: Callable[[Submission], PartScores],
) -> Board:
    shown = []
    for team, name in snapshot.teams.items():
        chosen = counted(definition, snapshot, team, version)
        if chosen:
            best = min(chosen, key=lambda one: (_order(version, score(one)), one.number))
            shown.append((name, best))
    shown.sort(key=lambda pair: (_order(version, score(pair[1])), pair[1].arrived, pair[1].number))
    rows: list[Row] = []
    for name, one in shown:
        found = score(one)
        ranked = [
            other for other in snapshot.of_team(one.team) if version.number in other.scores and not other.late
        ]
        rows.append(
            Row(
                rank=len(rows) + 1,
                team=name,
                submission=one.number,
                method=one.scores[version.number].get("method", ""),
                metrics=found["metrics"],
                intervals=found["intervals"],
                arrived=iso(one.arrived),
                submissions=len(ranked),
            )
        )
    if definition.ties == "interval":
        rows = _share_ranks(rows, version.metrics[0])
    clips = score(shown[0][1])["n"] if shown else None
    return Board(
        definition.title, part, version.number, version.protocol, version.metrics, clips, tuple(rows)
    )


def _share_ranks(rows: list[Row], metric: str) -> list[Row]:
    """Give a row the rank of the first row of that rank if its score lies in that row's interval."""
    shared: list[Row] = []
    first: Row | None = None
    for row in rows:
        value = row.metrics[metric]
        interval = None if first is None else first.intervals[metric]
        if first is not None and interval and value is not None and interval[0] <= value <= interval[1]:
            shared.append(replace(row, rank=first.rank))
        else:
            first = row
            shared.append(row)
    return shared


def _order(version: Version, scores: PartScores) -> tuple[bool, float]:
    """The sorting key of scores, the best first and undefined ones last."""
    value = scores["metrics"][version.metrics[0]]
    if value is None:
        return True, 0.0
    return False, -value if version.higher_is_better else value
