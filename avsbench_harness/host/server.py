"""The server of a competition: upload page, own submissions, board and rules; no page has scripts."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp

from avsbench_harness.host.challenge import Challenge
from avsbench_harness.host.receipts import write_receipt, write_receipts
from avsbench_harness.host.scoring_queue import score_pending
from avsbench_harness.host.security import RateLimit, SecurityHeaders, Sessions
from avsbench_harness.host.site import Site

logger = logging.getLogger(__name__)

#: Seconds between looks for submissions that another process has accepted.
POLL = 2.0


@dataclass(frozen=True)
class Settings:
    """Settings of the server.

    Attributes:
        workers: number of scoring processes; 0 leaves the scoring to ``avsb challenge ingest``.
        https: whether a proxy provides HTTPS.
        requests: requests of an address per minute.
        logins: attempts to log in of an address per minute.
        uploads: uploads of a team per minute.
        upload_seconds: longest time of an upload.
    """

    workers: int = 1
    https: bool = False
    requests: int = 600
    logins: int = 10
    uploads: int = 20
    upload_seconds: float = 1800


class Scoring:
    """Threads that score pending submissions, each in a process of its own."""

    def __init__(self, challenge: Challenge, workers: int) -> None:
        self._challenge = challenge
        self._wake = threading.Event()
        self._stop = False
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(workers)]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Look for pending submissions now."""
        self._wake.set()

    def stop(self) -> None:
        """Stop after the scorings that are running."""
        self._stop = True
        self._wake.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stop:
            try:
                for one in score_pending(self._challenge):
                    write_receipt(self._challenge, self._challenge.snapshot(), one.ticket)
                    if self._stop:
                        return
            except Exception as error:  # a full disk or a lost database; the submissions stay pending
                logger.error(f"Scoring stopped for {POLL:g} seconds: {type(error).__name__}: {error}")
            self._wake.wait(POLL)
            self._wake.clear()


def build_app(challenge: Challenge, settings: Settings) -> ASGIApp:
    """The application of a competition; it scores while it runs."""
    scoring = Scoring(challenge, settings.workers)
    site = Site(
        challenge,
        Sessions(challenge),
        wake=scoring.wake,
        limits={
            "requests": RateLimit(settings.requests),
            "logins": RateLimit(settings.logins),
            "uploads": RateLimit(settings.uploads),
        },
        https=settings.https,
        upload_seconds=settings.upload_seconds,
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(write_receipts, challenge)
        scoring.start()
        yield
        await asyncio.to_thread(scoring.stop)

    app = Starlette(
        routes=[
            Route("/", site.home),
            Route("/board", site.board),
            Route("/board.json", site.board_json),
            Route("/rules", site.rules),
            Route("/site.css", site.style),
            Route("/login", site.login_page),
            Route("/login", site.login, methods=["POST"]),
            Route("/logout", site.logout, methods=["POST"]),
            Route("/submit", site.submit_page),
            Route("/submit", site.submit, methods=["POST"]),
            Route("/submissions", site.submissions),
            Route("/submissions/{number:int}", site.submission),
            Route("/submissions/{number:int}/select", site.select, methods=["POST"]),
        ],
        exception_handlers=site.error_handlers(),
        lifespan=lifespan,
    )
    return SecurityHeaders(app, https=settings.https)  # around everything, also the handler of defects


def run_server(
    challenge: Challenge, settings: Settings, host: str, port: int, announce: Callable[[str], None]
) -> None:
    """Serve until the process is stopped; ``announce`` is called with the address."""
    listening = socket.create_server((host, port))
    announce(f"http://{host}:{listening.getsockname()[1]}")
    logs = copy.deepcopy(uvicorn.config.LOGGING_CONFIG)
    logs["handlers"]["access"]["stream"] = "ext://sys.stderr"  # standard output has the address alone
    options: dict[str, Any] = {"proxy_headers": settings.https, "forwarded_allow_ips": "127.0.0.1"}
    config = uvicorn.Config(
        build_app(challenge, settings),
        server_header=False,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=10,
        log_level="info",
        log_config=logs,
        **options,
    )
    uvicorn.Server(config).run(sockets=[listening])
