"""The database: SQLite, and a real PostgreSQL that the test starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="needs the extra host")

from sqlalchemy import text

from avsbench_harness.errors import AvsbError, UsageError
from avsbench_harness.host.audit import audit
from avsbench_harness.host.board import challenge_board
from avsbench_harness.host.challenge import Challenge
from avsbench_harness.host.database import Database
from avsbench_harness.host.inbox import ingest, submit

SERVERS = ("sqlite", "postgresql")


def _postgresql() -> Path | None:
    """The folder with initdb and postgres, which Debian keeps out of the path."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((place for place in places if (place / "postgres").exists()), None)


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL server of this test, which listens on a socket in a folder."""
    pytest.importorskip("psycopg", reason="needs psycopg")
    programs = _postgresql()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    folder = tmp_path_factory.mktemp("pg")
    user = []
    if os.geteuid() == 0:  # the server refuses to run as root
        if shutil.which("runuser") is None:
            pytest.skip("PostgreSQL does not run as root")
        user = ["runuser", "-u", "nobody", "--"]
        for parent in (folder, *folder.parents[:2]):
            parent.chmod(0o755)
        folder.chmod(0o777)
    data = folder / "data"

    def run(*command: object) -> None:
        done = subprocess.run(
            [*user, *map(str, command)], capture_output=True, text=True, check=False, cwd=folder
        )
        if done.returncode:
            pytest.skip(f"PostgreSQL cannot be started: {done.stderr[-300:]}")

    run(programs / "initdb", "-D", data, "-U", "avsb", "-A", "trust", "--no-sync")
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    run(programs / "pg_ctl", "-D", data, "-l", folder / "log", "-w", "-o", options, "start")
    yield f"postgresql+psycopg://avsb@/postgres?host={folder}"
    subprocess.run([*user, str(programs / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop"], check=False,
                   capture_output=True, cwd=folder)  # fmt: skip


@pytest.fixture(params=SERVERS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'other.sqlite'}"
        return
    server = request.getfixturevalue("postgresql")
    yield server
    database = Database(server)
    with database.engine.connect() as connection:
        connection.execute(text("DROP TABLE log, teams, private_scores, sessions"))
        connection.commit()
    database.close()


def test_a_competition_on_another_database(competition, url: str, in_process) -> None:
    with Challenge(competition.folder, url, competition.clock) as challenge:
        token = challenge.add_team("Delta", "d@example.org")
        path = competition.predict("mine", {"public": 0.6, "private": 0.37})
        submit(challenge.inbox, path, "Delta", token, {"paper": "none"})
        from avsbench_harness.host import inbox

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(inbox, "arrival_time", lambda folder: competition.clock())
            assert [one.status for one in ingest(challenge).scored] == ["scored"]
        assert [row.team for row in challenge_board(challenge).rows] == ["Delta"]
        assert audit(challenge).faults == []
        assert challenge.authenticate(token) == 1
    with Challenge(competition.folder, url) as again:
        assert again.snapshot().teams == {1: "Delta"}


@pytest.mark.parametrize("statement", ["UPDATE log SET entry = 'x'", "DELETE FROM log"])
def test_the_log_cannot_be_changed(competition, url: str, statement: str) -> None:
    with Challenge(competition.folder, url, competition.clock) as challenge:
        before = challenge.entries()
        with pytest.raises(AvsbError, match="append-only"), challenge.database.writing() as connection:
            connection.execute(text(statement))
        assert challenge.entries() == before


def test_writers_exclude_each_other(competition, url: str) -> None:
    with Challenge(competition.folder, url, competition.clock) as challenge:

        def add(number: int) -> None:
            with Challenge(competition.folder, url, competition.clock) as other:
                for k in range(5):
                    other.add_team(f"team {number} {k}", "x")

        threads = [threading.Thread(target=add, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(challenge.snapshot().teams) == list(range(1, 31))
        assert [entry.seq for entry in challenge.entries()] == list(range(1, 33))
        assert audit(challenge, sample=0).faults == []


def test_a_failed_transaction_leaves_nothing(competition, url: str) -> None:
    with Challenge(competition.folder, url, competition.clock) as challenge:
        before = challenge.entries()

        class Killed(BaseException):
            pass

        def half() -> None:
            with challenge.writing() as tx:
                tx.append("team", team=1, name="x")
                raise Killed

        with pytest.raises(Killed):
            half()
        assert challenge.entries() == before


@pytest.mark.parametrize("url", ["nonsense", "mysql+nothing://x", "postgresql+psycopg://me:secret@/x?port=1"])
def test_urls_that_cannot_be_used(url: str) -> None:
    with pytest.raises((UsageError, AvsbError)) as caught:
        Database(url)
    assert "secret" not in str(caught.value)
