"""Rules of arrival, and signatures against the standard library."""

from __future__ import annotations

import hashlib
import hmac
from datetime import timedelta

import pytest

from avsbench_harness.errors import UsageError
from avsbench_harness.host.definition import utc
from avsbench_harness.host.rules import (
    Arrival,
    check_name,
    hash_token,
    is_signed,
    is_ticket,
    is_token,
    new_ticket,
    new_token,
    refusal,
    sign,
)  # fmt: skip
from avsbench_harness.host.snapshot import Snapshot, Submission

TIME = utc("2027-03-02T12:00")
FIELDS = {"paper": "none"}


def made(number: int, team: int = 1, day: int = 2, status: str = "scored", sha256: str = "") -> Submission:
    arrived = utc(f"2027-03-{day:02}T01:00")
    digest = sha256 or f"{number:064}"
    return Submission(number, f"{number:032x}", team, digest, 1, arrived, "development", FIELDS, status)


def after(*submissions: Submission, sample: str = "") -> Snapshot:
    return Snapshot(
        teams={1: "A", 2: "B"}, submissions={one.number: one for one in submissions}, sample=sample
    )


def arrival(**changes) -> Arrival:
    values = {"ticket": "a" * 32, "team": 1, "arrived": TIME, "sha256": "f" * 64, "fields": FIELDS}
    return Arrival(**{**values, **changes})


def test_limits_count_by_day_and_in_all(redefine) -> None:
    definition = redefine(limits={"per_day": 2, "total": 3})
    assert refusal(definition, after(made(1)), arrival()) == ""
    assert "2 submissions of this day" in refusal(definition, after(made(1), made(2)), arrival())
    assert refusal(definition, after(made(1), made(2, day=3)), arrival()) == ""
    assert refusal(definition, after(made(1), made(2, status="invalid")), arrival()) == ""
    assert "this day" in refusal(definition, after(made(1), made(2, status="pending")), arrival())
    assert refusal(definition, after(made(1), made(2, team=2)), arrival()) == ""
    all_made = after(made(1, day=3), made(2, day=4), made(3, day=5))
    assert "all of its 3" in refusal(definition, all_made, arrival())


def test_days_end_at_midnight_utc(redefine) -> None:
    definition, one = redefine(limits={"per_day": 1, "total": 9}), after(made(1))
    midnight = utc("2027-03-03")
    assert refusal(definition, one, arrival(arrived=midnight)) == ""
    assert refusal(definition, one, arrival(arrived=midnight - timedelta(microseconds=1)))


def test_phases(redefine) -> None:
    definition = redefine(
        phases=[
            {"name": "first", "start": "2027-03-01", "end": "2027-03-05"},
            {"name": "second", "start": "2027-03-10", "end": "2027-03-20"},
        ]
    )
    for time, message in [
        ("2027-02-28T23:59:59", "starts at 2027-03-01 00:00 UTC"),
        ("2027-03-05", "'second' starts at 2027-03-10"),
        ("2027-03-20", "ended at 2027-03-20"),
    ]:
        assert message in refusal(definition, after(), arrival(arrived=utc(time)))


def test_copies(redefine) -> None:
    definition = redefine()
    same = made(1, sha256="f" * 64)
    assert "submission 1" in refusal(definition, after(same), arrival())
    other = made(1, team=2, sha256="f" * 64)
    assert "Another team" in refusal(definition, after(other), arrival())
    assert refusal(definition, after(other, sample="f" * 64), arrival()) == ""
    invalid = made(1, sha256="f" * 64, status="invalid")
    assert refusal(definition, after(invalid), arrival()) == ""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "'paper' is required"),
        ({"paper": "  "}, "'paper' is required"),
        ({"paper": "x", "code": "y"}, "'code' is not a field"),
        ({"paper": "x" * 501}, "at most 500"),
        ({"paper": "a\x1b[31m"}, "printable"),
    ],
)
def test_fields(redefine, fields: dict[str, str], message: str) -> None:
    assert message in refusal(redefine(), after(), arrival(fields=fields))


def test_signatures_are_hmac_of_the_canonical_values() -> None:
    token, ticket = new_token(), new_ticket()
    assert is_token(token)
    assert is_ticket(ticket)
    key = hashlib.sha256(token.encode()).digest()
    values = {"team": "A", "fields": {}}
    message = f'{{"fields":{{}},"team":"A","ticket":"{ticket}"}}'.encode()
    expected = hmac.new(key, message, "sha256").hexdigest()
    assert sign(hash_token(token), ticket, values) == expected
    assert is_signed(expected, hash_token(token), ticket, values)
    assert not is_signed(expected, hash_token(new_token()), ticket, values)
    assert not is_signed(expected, hash_token(token), new_ticket(), values)
    assert not is_signed(expected, hash_token(token), ticket, {**values, "team": "B"})


@pytest.mark.parametrize("name", ["", "..", "a" * 31, "A" * 32, "a" * 32 + "\n", "../" + "a" * 29])
def test_only_tickets_become_names_of_files(name: str) -> None:
    assert not is_ticket(name)


@pytest.mark.parametrize("name", ["", "  ", "x" * 61, "a\x00b", "a\u202eb", "b"])
def test_names_of_teams(name: str) -> None:
    with pytest.raises(UsageError):
        check_name(name, after())


def test_a_team_may_change_the_case_of_its_name() -> None:
    assert check_name(" b  c ", after()) == "b c"
    assert check_name("b", after(), team=2) == "b"
