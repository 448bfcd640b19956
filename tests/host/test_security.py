"""Rate limits, sessions, and tokens of forms."""

from __future__ import annotations

import hashlib
import hmac

import pytest

pytest.importorskip("starlette", reason="needs the extra host")

from sqlalchemy import select

from avsbench_harness.host.database import SESSIONS
from avsbench_harness.host.security import (
    SESSION_SECONDS,
    RateLimit,
    Sessions,
    csrf_token,
    is_csrf_token,
)


def test_a_bucket_refills() -> None:
    time = [0.0]
    limit = RateLimit(6, clock=lambda: time[0])
    assert [limit.wait("a") for _ in range(7)] == [0, 0, 0, 0, 0, 0, 10]
    assert limit.wait("b") == 0
    time[0] = 9.9
    assert limit.wait("a") > 0
    time[0] = 20.5
    assert [limit.wait("a") for _ in range(3)] == [0, 0, 10]


def test_the_number_of_keys_is_bounded() -> None:
    limit = RateLimit(1)
    for number in range(10_050):
        limit.wait(str(number))
    assert len(limit._buckets) == 10_000


def test_sessions_end(competition, monkeypatch) -> None:
    from avsbench_harness.host import security

    sessions = Sessions(competition.challenge)
    session = sessions.start(2)
    assert sessions.team(session) == 2
    assert sessions.team("") is None
    with competition.challenge.database.reading() as connection:
        (stored,) = connection.execute(select(SESSIONS.c.id)).scalars()
    assert stored == hashlib.sha256(session.encode()).hexdigest()
    before = security.time.time
    monkeypatch.setattr(security.time, "time", lambda: before() + SESSION_SECONDS + 1)
    assert sessions.team(session) is None
    monkeypatch.undo()
    sessions.end(session)
    assert sessions.team(session) is None


def test_form_tokens_belong_to_a_session() -> None:
    assert csrf_token("s") == hmac.new(b"s", b"csrf", "sha256").hexdigest()
    assert is_csrf_token(csrf_token("s"), "s")
    assert not is_csrf_token(csrf_token("s"), "t")
    assert not is_csrf_token("é", "s")
