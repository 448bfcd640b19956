"""The inbox: hostile folders, kills, several processes at once, and a full disk."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.files import write_json
from avsbench_harness.host import challenge as challenge_module
from avsbench_harness.host import inbox as inbox_module
from avsbench_harness.host.audit import audit
from avsbench_harness.host.challenge import Challenge
from avsbench_harness.host.definition import write_definition
from avsbench_harness.host.inbox import arrival_time, ingest, submit, take_in

FIELDS = {"paper": "none"}


@pytest.fixture
def small(competition) -> Path:
    return competition.predict("small", {"public": 0.5, "private": 0.5})


@pytest.fixture
def now(competition, monkeypatch) -> None:
    """Submissions arrive during the first phase."""
    monkeypatch.setattr(inbox_module, "arrival_time", lambda folder: competition.clock())


def reasons(outcomes) -> list[str]:
    return [one.reason for one in outcomes]


def test_the_time_of_arrival_is_that_of_the_file_system(competition, small) -> None:
    before = datetime.now(UTC).timestamp()
    ticket = submit(competition.challenge.inbox, small, "Alpha", competition.tokens["Alpha"], FIELDS)
    folder = competition.challenge.inbox / ticket
    os.utime(folder / "submission.npz", (0, 0))  # participants can set the time of modification
    os.utime(folder, (0, 0))
    assert before - 1 < arrival_time(folder).timestamp() < time.time() + 1


def test_no_secret_is_in_the_inbox(competition, small) -> None:
    token = competition.tokens["Alpha"]
    ticket = submit(competition.challenge.inbox, small, "Alpha", token, FIELDS)
    for path in (competition.challenge.inbox / ticket).iterdir():
        assert token.encode() not in path.read_bytes()
        assert token[5:].encode() not in path.read_bytes()


def test_a_wrong_token_or_team_is_refused(competition, small, now) -> None:
    inbox, tokens = competition.challenge.inbox, competition.tokens
    submit(inbox, small, "Alpha", tokens["Beta"], FIELDS)
    submit(inbox, small, "Nobody", tokens["Beta"], FIELDS)
    with pytest.raises(UsageError, match="not one that"):
        submit(inbox, small, "Alpha", "secret", FIELDS)
    with pytest.raises(MissingDataError, match="nowhere"):
        submit(Path("nowhere"), small, "Alpha", tokens["Alpha"], FIELDS)
    outcomes = take_in(competition.challenge, inbox)
    assert reasons(outcomes) == ["The team or its token is not valid."] * 2
    assert [one.team for one in outcomes] == [None, None]


def test_a_renewed_token_replaces_the_old_one(competition, small, now) -> None:
    old, fresh = competition.tokens["Alpha"], competition.challenge.renew_token("alpha")
    for token in (old, fresh):
        submit(competition.challenge.inbox, small, "Alpha", token, FIELDS)
    outcomes = take_in(competition.challenge, competition.challenge.inbox)
    assert Counter(type(one).__name__ for one in outcomes) == {"Refusal": 1, "Submission": 1}


@pytest.mark.parametrize(
    "attack", ["link", "folder link", "pipe", "large form", "no form", "other file", "extra"]
)
def test_hostile_folders(competition, small, now, tmp_path: Path, attack: str) -> None:
    challenge = competition.challenge
    ticket = submit(challenge.inbox, small, "Alpha", competition.tokens["Alpha"], FIELDS)
    folder = challenge.inbox / ticket
    file = folder / "submission.npz"
    if attack == "link":
        file.unlink()
        file.symlink_to(challenge.solution_of(1))
    elif attack == "folder link":
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    elif attack == "pipe":
        file.unlink()
        os.mkfifo(file)
    elif attack == "large form":
        (folder / "submission.json").write_bytes(b" " * 70_000)
    elif attack == "no form":
        (folder / "submission.json").unlink()
    elif attack == "other file":
        file.write_bytes(b"other")
    elif attack == "extra":
        (folder / "deep" / "x").mkdir(parents=True)
    outcomes = take_in(challenge, challenge.inbox)
    expected = {
        "link": "cannot be read",
        "pipe": "not a regular file",
        "large form": "more than 64 KiB",
        "no form": "cannot be read",
        "other file": "not the one that was signed",
    }
    if attack == "folder link":
        assert outcomes == []
    elif attack == "extra":
        assert outcomes[0].number == 1
    else:
        assert expected[attack] in outcomes[0].reason
        assert list(challenge.files.iterdir()) == []
    assert not folder.exists() or attack == "folder link"
    assert challenge.solution_of(1).is_file()


def test_names_of_others_are_left_alone(competition, now, caplog) -> None:
    inbox = competition.challenge.inbox
    for name in ("mine", "..x", "a" * 33):
        (inbox / name).mkdir()
    (inbox / ("b" * 32)).write_text("a file")
    assert take_in(competition.challenge, inbox) == []
    assert len(list(inbox.iterdir())) == 4
    assert caplog.text.count("left alone") == 3


def test_files_are_limited_in_size_before_they_are_stored(competition, small, now, redefine) -> None:
    write_definition(competition.folder, redefine(limits={"per_day": 2, "total": 4, "megabytes": 1}))
    large = small.with_name("large.npz")
    large.write_bytes(b"x" * 1_000_001)
    with Challenge(competition.folder, clock=competition.clock) as challenge:
        submit(challenge.inbox, large, "Alpha", competition.tokens["Alpha"], FIELDS)
        assert reasons(take_in(challenge, challenge.inbox)) == ["The file has more than 1 MB."]
        assert list(challenge.files.iterdir()) == []


class Killed(BaseException):
    """Stands for a kill: nothing after it runs."""


@pytest.mark.parametrize("point", ["copy_bounded", "receive", "rmtree", "after commit", "score", "receipt"])
def test_a_kill_at_every_step_loses_and_repeats_nothing(
    competition, small, now, in_process, monkeypatch, point: str
) -> None:
    challenge = competition.challenge
    ticket = submit(challenge.inbox, small, "Alpha", competition.tokens["Alpha"], FIELDS)

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if point == "copy_bounded":
            patch.setattr(inbox_module, "copy_bounded", die)
        elif point == "receive":
            patch.setattr(challenge_module.Transaction, "append", die)
        elif point == "rmtree":
            patch.setattr(shutil, "rmtree", die)
        elif point == "after commit":
            patch.setattr(
                challenge, "receive", lambda arrival: (Challenge.receive(challenge, arrival), die())
            )
        elif point == "score":
            patch.setattr(challenge, "record_scores", die)
        elif point == "receipt":
            patch.setattr(inbox_module, "write_receipt", die)
        with pytest.raises(Killed):
            ingest(challenge)
    ingest(challenge)
    assert list(challenge.inbox.iterdir()) == []
    (one,) = challenge.snapshot().submissions.values()
    assert (one.ticket, one.status) == (ticket, "scored")
    assert (challenge.receipts / f"{ticket}.json").is_file()
    assert [entry.values["kind"] for entry in challenge.entries()].count("scored") == 1
    assert audit(challenge, sample=1).faults == []


def test_a_database_error_is_one_sentence_and_loses_nothing(competition, small, now, monkeypatch) -> None:
    """A full disk within a transaction, as SQLite reports it."""
    from sqlalchemy.exc import OperationalError

    from avsbench_harness.errors import AvsbError

    challenge = competition.challenge
    ticket = submit(challenge.inbox, small, "Alpha", competition.tokens["Alpha"], FIELDS)

    def full(self: object, kind: str, **_: object) -> None:
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    with monkeypatch.context() as patch:
        patch.setattr(challenge_module.Transaction, "append", full)
        with pytest.raises(AvsbError, match="database or disk is full"):
            take_in(challenge, challenge.inbox)
    assert (challenge.inbox / ticket).is_dir()
    (one,) = take_in(challenge, challenge.inbox)
    assert one.ticket == ticket


#: Runs ingest with a limit of the size of files, as on a disk with no more room.
LIMITED = """
import resource, sys
from pathlib import Path
from avsbench_harness.host import inbox
from avsbench_harness.host.challenge import Challenge
challenge = Challenge(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
inbox.ingest(challenge)
"""


@pytest.fixture
def running(competition, redefine) -> Challenge:
    """The competition with phases that are running now and high limits."""
    write_definition(
        competition.folder,
        redefine(
            phases=[{"name": "now", "start": "2020-01-01", "end": "2099-01-01"}],
            limits={"per_day": 100, "total": 100},
        ),
    )
    with Challenge(competition.folder) as challenge:
        yield challenge


@pytest.mark.slow
def test_a_full_disk_loses_nothing(competition, running, small, environment) -> None:
    ticket = submit(running.inbox, small, "Alpha", competition.tokens["Alpha"], FIELDS)
    size = small.stat().st_size
    for limit in (size // 2, size + 10):  # the copy fails; the copy succeeds and the database fails
        command = [sys.executable, "-c", LIMITED, str(running.folder), str(min(limit, 30_000))]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert (running.inbox / ticket).is_dir() or running.snapshot().outcome(ticket)
    ingest(running)
    (one,) = running.snapshot().submissions.values()
    assert (one.ticket, one.status) == (ticket, "scored")


def ingesting(folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "avsbench_harness", "challenge", "ingest", "--challenge", str(folder)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


@pytest.mark.slow
def test_killed_and_concurrent_processes(competition, running, environment) -> None:
    """Pairs of processes take in 12 submissions; half of them are killed at random times."""
    rng, tickets = random.Random(int(os.environ.get("AVSB_KILL_SEED", "0"))), []
    for number in range(12):
        team = ("Alpha", "Beta", "Gamma")[number % 3]
        share = {"public": 0.1 + 0.05 * number, "private": 0.9 - 0.05 * number}
        path = competition.predict(f"n{number}", share, number)
        tickets.append(submit(running.inbox, path, team, competition.tokens[team], FIELDS))
    for _ in range(8):
        first, second = (ingesting(running.folder, environment) for _ in range(2))
        time.sleep(rng.uniform(1.0, 8.0))
        os.killpg(first.pid, signal.SIGKILL)
        output, _ = second.communicate(timeout=300)
        assert second.returncode == 0, output
        first.communicate()
        if not running.snapshot().pending(1) and not list(running.inbox.iterdir()):
            break
    last = ingesting(running.folder, environment)
    assert last.communicate(timeout=300) is not None
    assert last.returncode == 0
    snapshot = running.snapshot()
    assert sorted(one.ticket for one in snapshot.submissions.values()) == sorted(tickets)
    assert {one.status for one in snapshot.submissions.values()} == {"scored"}
    kinds = Counter(entry.values["kind"] for entry in running.entries())
    assert kinds["received"] == kinds["scored"] == 12
    assert len(running.private_scores(1)) == 12
    assert {path.stem for path in running.receipts.iterdir()} == set(tickets)
    assert audit(running, sample=2).faults == []


def test_forms_are_bounded_in_every_value(competition, small, now) -> None:
    ticket = submit(competition.challenge.inbox, small, "Alpha", competition.tokens["Alpha"], FIELDS)
    form = competition.challenge.inbox / ticket / "submission.json"
    write_json(
        form, {"format": 1, "team": "A" * 300, "sha256": "x", "selected": 1, "fields": [], "signature": ""}
    )
    (refused,) = take_in(competition.challenge, competition.challenge.inbox)
    assert refused.team is None
    assert "submission.json" in refused.reason
