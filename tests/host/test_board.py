"""Ranks of boards, by hand."""

from __future__ import annotations

from dataclasses import replace

from avsbench_harness.host.board import public_board
from avsbench_harness.host.definition import utc
from avsbench_harness.host.snapshot import Snapshot, Submission, Version

VERSION = Version(1, "0" * 64, "0" * 64, "object/1", ("J", "F"), True)


def state(*values: tuple[float | None, tuple[float, float] | None]) -> Snapshot:
    """One submission per team, an hour apart, with a first metric and its interval."""
    submissions = {}
    for number, (value, interval) in enumerate(values, start=1):
        scores = {"n": 4, "method": "m", "metrics": {"J": value, "F": None}, "intervals": {"J": interval}}
        submissions[number] = Submission(
            number, f"{number:032x}", number, "", 1, utc(f"2027-03-02T{number:02}:00"), "final", {},
            "scored", "", {1: scores},
        )  # fmt: skip
    teams = {number: f"team {number}" for number in submissions}
    return Snapshot(teams=teams, submissions=submissions, versions=(VERSION,))


def ranks(snapshot: Snapshot, definition) -> list[tuple[str, int]]:
    return [(row.team.split()[1], row.rank) for row in public_board(definition, snapshot).rows]


def test_ties_by_date(redefine) -> None:
    snapshot = state((0.5, (0.4, 0.6)), (0.7, (0.6, 0.8)), (0.5, (0.4, 0.6)), (None, None))
    assert ranks(snapshot, redefine(ties="date")) == [("2", 1), ("1", 2), ("3", 3), ("4", 4)]


def test_ties_by_interval_of_the_first_row_of_a_rank(redefine) -> None:
    """0.60 lies in the interval of 0.70, 0.50 does not, although it lies in that of 0.60."""
    snapshot = state((0.50, (0.40, 0.60)), (0.60, (0.45, 0.70)), (0.70, (0.55, 0.80)), (0.45, (0.3, 0.5)))
    assert ranks(snapshot, redefine(ties="interval")) == [("3", 1), ("2", 1), ("1", 3), ("4", 3)]


def test_lower_may_be_better(redefine) -> None:
    snapshot = state((0.5, None), (0.7, None))
    lower = replace(snapshot, versions=(replace(VERSION, higher_is_better=False),))
    assert ranks(snapshot, redefine()) == [("2", 1), ("1", 2)]
    assert ranks(lower, redefine()) == [("1", 1), ("2", 2)]


def test_the_best_submission_of_a_team_counts_and_the_earlier_of_equal_ones(redefine) -> None:
    snapshot = state((0.5, None), (0.7, None), (0.7, None))
    own = {number: replace(one, team=1) for number, one in snapshot.submissions.items()}
    (row,) = public_board(redefine(), replace(snapshot, submissions=own)).rows
    assert (row.submission, row.submissions) == (2, 3)
