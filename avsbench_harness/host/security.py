"""Security of the server: response headers, rate limits, sessions and protection against forged requests."""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from sqlalchemy import delete, insert, select
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from avsbench_harness.host.challenge import Challenge
from avsbench_harness.host.database import SESSIONS

COOKIE = "avsb_session"

#: Seconds after which a session ends.
SESSION_SECONDS = 12 * 3600

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


class SecurityHeaders:
    """Adds :data:`HEADERS` to every response, also of errors."""

    def __init__(self, app: ASGIApp, https: bool) -> None:
        self.app = app
        self.headers = dict(HEADERS)
        if https:
            self.headers["Strict-Transport-Security"] = "max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, with_headers)


class RateLimit:
    """Token buckets by key: ``per_minute`` events on average, as many at once.

    Args:
        per_minute: events per minute.
        clock: seconds.
    """

    _KEYS = 10_000

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def wait(self, key: str) -> int:
        """Count an event; return 0 if it is allowed, else the seconds to wait."""
        now = self._clock()
        with self._lock:
            level, before = self._buckets.pop(key, (float(self.per_minute), now))
            level = min(self.per_minute, level + (now - before) * self.per_minute / 60)
            allowed = level >= 1
            self._buckets[key] = (level - 1 if allowed else level, now)
            while len(self._buckets) > self._KEYS:  # the least recently used key
                del self._buckets[next(iter(self._buckets))]
        return 0 if allowed else math.ceil((1 - level) * 60 / self.per_minute)


class Sessions:
    """Sessions in the database, of which only the hash of the id is stored."""

    def __init__(self, challenge: Challenge) -> None:
        self._challenge = challenge

    def start(self, team: int) -> str:
        """Start a session and return its id."""
        session, now = secrets.token_urlsafe(32), int(time.time())
        with self._challenge.database.writing() as connection:
            connection.execute(delete(SESSIONS).where(SESSIONS.c.expires < now))
            values = {"id": _hash(session), "team": team, "expires": now + SESSION_SECONDS}
            connection.execute(insert(SESSIONS).values(values))
        return session

    def team(self, session: str) -> int | None:
        """The team of a session, or ``None``."""
        with self._challenge.database.reading() as connection:
            query = select(SESSIONS.c.team).where(
                SESSIONS.c.id == _hash(session), SESSIONS.c.expires >= int(time.time())
            )
            team = connection.execute(query).scalar()
        return None if team is None else int(team)

    def end(self, session: str) -> None:
        """End a session."""
        with self._challenge.database.writing() as connection:
            connection.execute(delete(SESSIONS).where(SESSIONS.c.id == _hash(session)))

    def end_all(self, team: int) -> None:
        """End the sessions of a team."""
        with self._challenge.database.writing() as connection:
            connection.execute(delete(SESSIONS).where(SESSIONS.c.team == team))


def csrf_token(session: str) -> str:
    """The token that forms of a session carry."""
    return hmac.new(session.encode(), b"csrf", hashlib.sha256).hexdigest()


def is_csrf_token(token: str, session: str) -> bool:
    """Whether a form's token belongs to the session; compared in constant time."""
    return hmac.compare_digest(token.encode(), csrf_token(session).encode())


def is_cross_site(request: Request) -> bool:
    """Whether a browser says that another site sent the request."""
    fetched = request.headers.get("sec-fetch-site")
    if fetched is not None:
        return fetched not in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host")


def _hash(session: str) -> str:
    return hashlib.sha256(session.encode()).hexdigest()
