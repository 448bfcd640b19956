"""The pages of the server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from avsbench_harness.errors import UsageError
from avsbench_harness.host.challenge import Challenge
from avsbench_harness.host.pages import board_values, markdown, render, template
from avsbench_harness.host.receipts import receipt, write_receipt
from avsbench_harness.host.rules import Arrival, is_token, new_ticket
from avsbench_harness.host.security import (
    COOKIE,
    SESSION_SECONDS,
    RateLimit,
    Sessions,
    csrf_token,
    is_cross_site,
    is_csrf_token,
)
from avsbench_harness.host.snapshot import Refusal, Snapshot, Submission
from avsbench_harness.host.texts import rules_text
from avsbench_harness.host.upload import OVERHEAD, TooLarge, Upload

logger = logging.getLogger(__name__)

#: Longest body of a form without a file, bytes.
MAX_FORM = 16 * 1024


class Site:
    """The handlers of all pages.

    Args:
        challenge: the competition.
        sessions: sessions of teams.
        wake: called after an upload.
        limits: rate limits by name: requests, logins, uploads.
        https: whether cookies are sent over HTTPS alone.
        upload_seconds: longest time of an upload.
    """

    def __init__(
        self,
        challenge: Challenge,
        sessions: Sessions,
        *,
        wake: Callable[[], None],
        limits: Mapping[str, RateLimit],
        https: bool,
        upload_seconds: float,
    ) -> None:
        self.challenge = challenge
        self.sessions = sessions
        self._wake = wake
        self._limits = limits
        self._https = https
        self._upload_seconds = upload_seconds
        self._boards: tuple[int, dict[str, Any]] = (-1, {})

    # Public pages

    def home(self, request: Request) -> Response:
        """The description."""
        definition = self.challenge.definition
        body = markdown(definition.description)
        return self._page(request, "text.html", title=definition.title, body=body)

    def rules(self, request: Request) -> Response:
        """The rules."""
        text = rules_text(self.challenge.definition).partition("\n")[2]
        return self._page(request, "text.html", title="Rules", body=markdown(text))

    def board(self, request: Request) -> Response:
        """The public board, and the private one after the reveal."""
        return self._page(request, "board.html", title="Leaderboard", **self._board())

    def board_json(self, request: Request) -> Response:
        """The same as JSON."""
        self._limit("requests", request)
        return JSONResponse([board.to_json() for board in self._board()["boards"]])

    def style(self, request: Request) -> Response:
        """The style sheet."""
        return Response(template("site.css"), media_type="text/css", headers={"Cache-Control": "max-age=600"})

    # Log in and out

    def login_page(self, request: Request) -> Response:
        """The form to log in."""
        return self._page(request, "login.html", title="Log in")

    async def login(self, request: Request) -> Response:
        """Start a session with the token of a team."""
        self._limit("logins", request)
        self._refuse_cross_site(request)
        token = (await self._form(request)).get("token", "").strip()
        team = await run_in_threadpool(self.challenge.authenticate, token) if is_token(token) else None
        if team is None:
            return await run_in_threadpool(
                self._page, request, "login.html", 403, title="Log in", message="This token is not valid."
            )
        session = await run_in_threadpool(self.sessions.start, team)
        response = RedirectResponse("/submissions", 303)
        response.set_cookie(
            COOKIE, session, max_age=SESSION_SECONDS, httponly=True, samesite="strict", secure=self._https
        )
        return response

    async def logout(self, request: Request) -> Response:
        """End the session."""
        await self._own_form(request)
        await run_in_threadpool(self.sessions.end, request.cookies.get(COOKIE, ""))
        response = RedirectResponse("/", 303)
        response.delete_cookie(COOKIE)
        return response

    # Pages of a team

    def submissions(self, request: Request) -> Response:
        """The submissions of the team."""
        team = self._team(request)
        snapshot = self.challenge.snapshot()
        chosen = snapshot.selected.get(team, ())
        outcomes: list[Submission | Refusal] = [*snapshot.of_team(team)]
        outcomes += [one for one in snapshot.refusals if one.team == team]
        outcomes.sort(key=lambda one: one.arrived, reverse=True)
        rows = [_summary(snapshot, one, chosen) for one in outcomes]
        pending = any(row["status"] == "pending" for row in rows)
        return self._page(
            request,
            "submissions.html",
            title="My submissions",
            rows=rows,
            metric=snapshot.versions[-1].metrics[0],
            selectable=self.challenge.definition.counts == "selected",
            refresh=3 if pending else None,
        )

    def submission(self, request: Request) -> Response:
        """The receipt of a submission of the team; those of other teams do not exist here."""
        team = self._team(request)
        snapshot = self.challenge.snapshot()
        one = snapshot.submissions.get(request.path_params["number"])
        if one is None or one.team != team:
            raise HTTPException(404, "There is no such submission of your team.")
        values = receipt(snapshot, one)
        if _wants_json(request):
            return JSONResponse(values)
        rows = [(name, value) for name, value in values.items() if name != "public" and value]
        public = values["public"] or {}
        for metric, value in public.get("metrics", {}).items():
            rows.append((f"{metric} (public)", "n/a" if value is None else f"{100 * value:.2f} %"))
        return self._page(request, "receipt.html", title=f"Submission {one.number}", rows=rows)

    def submit_page(self, request: Request) -> Response:
        """The form to upload a submission."""
        self._team(request)
        definition = self.challenge.definition
        return self._page(
            request,
            "submit.html",
            title="Submit",
            limits=definition.limits,
            required=definition.required,
            selectable=definition.counts == "selected",
        )

    async def submit(self, request: Request) -> Response:
        """Receive a submission; the time of arrival is the end of the upload."""
        team = await run_in_threadpool(self._team, request)
        self._limit("uploads", request, f"team {team}")
        limit = self.challenge.definition.limits.megabytes * 1_000_000
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limit + OVERHEAD:
            raise HTTPException(413, f"The file has more than {limit // 1_000_000} MB.")
        ticket = new_ticket()
        path = self.challenge.file_of(ticket)

        def admit(fields: dict[str, str]) -> None:
            self._check_csrf(request, fields)

        upload = Upload(request.headers.get("content-type", ""), path, limit, admit)
        try:
            async with asyncio.timeout(self._upload_seconds):
                digest = await upload.receive(request.stream())
        except TimeoutError:
            raise HTTPException(408, "The upload took too long.") from None
        except TooLarge as error:
            raise HTTPException(413, str(error)) from None
        except ClientDisconnect:
            return Response(status_code=400)
        prefix = "field."
        fields = {
            name.removeprefix(prefix): value.strip()
            for name, value in upload.fields.items()
            if name.startswith(prefix)
        }
        arrival = Arrival(
            ticket=ticket,
            team=team,
            arrived=self.challenge.clock(),
            sha256=digest,
            size=upload.size,
            fields=fields,
            selected=upload.fields.get("selected") == "yes",
        )
        values = await run_in_threadpool(self._receive, arrival)
        self._wake()
        if _wants_json(request):
            return JSONResponse(values, 200 if values["status"] == "refused" else 202)
        return RedirectResponse("/submissions", 303)

    async def select(self, request: Request) -> Response:
        """Select a submission, or cancel the selection."""
        form = await self._own_form(request)
        team = await run_in_threadpool(self._team, request)
        number = request.path_params["number"]
        await run_in_threadpool(self.challenge.select, team, number, form.get("selected") == "yes")
        return RedirectResponse("/submissions", 303)

    # Errors

    def error_handlers(self) -> dict[Any, Any]:
        """Handlers of exceptions; a defect of the server tells nothing about itself."""
        return {
            HTTPException: lambda request, error: self._error(
                request, error.status_code, error.detail, error.headers
            ),
            UsageError: lambda request, error: self._error(request, 400, str(error)),
            500: lambda request, error: self._error(request, 500, "The server failed; try again later."),
        }

    def _error(
        self, request: Request, status: int, message: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        if status == 401 and request.method == "GET" and not _wants_json(request):
            return RedirectResponse("/login", 303)
        if _wants_json(request):
            return JSONResponse({"error": message}, status, headers)
        title = self.challenge.definition.title
        page = render("text.html", title=f"Error {status}", competition=title, served=True, body=message)
        return HTMLResponse(page, status, headers)

    # Helpers

    def _receive(self, arrival: Arrival) -> dict[str, Any]:
        outcome = self.challenge.receive(arrival)
        if isinstance(outcome, Refusal):
            self.challenge.file_of(arrival.ticket).unlink(missing_ok=True)
        snapshot = self.challenge.snapshot()
        write_receipt(self.challenge, snapshot, arrival.ticket)
        return receipt(snapshot, outcome)

    def _board(self) -> dict[str, Any]:
        """The boards, computed again when the log has grown."""
        seq = self.challenge.snapshot().seq
        if self._boards[0] != seq:
            self._boards = (seq, board_values(self.challenge))
        return self._boards[1]

    def _page(self, request: Request, name: str, status: int = 200, **values: Any) -> Response:
        self._limit("requests", request)
        session = request.cookies.get(COOKIE, "")
        number = self.sessions.team(session) if session else None
        common = {
            "competition": self.challenge.definition.title,
            "served": True,
            "root": "/",
            "team": None if number is None else self.challenge.snapshot().teams[number],
            "csrf": csrf_token(session),
        }
        return HTMLResponse(render(name, **common, **values), status)

    def _team(self, request: Request) -> int:
        """The team of a request: of its bearer token, else of its session."""
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            self._limit("requests", request)
            team = self.challenge.authenticate(token.strip()) if is_token(token.strip()) else None
            if team is None:
                self._limit("logins", request)
                raise HTTPException(401, "The token is not valid.")
            return team
        team = self.sessions.team(request.cookies.get(COOKIE, ""))
        if team is None:
            raise HTTPException(401, "Log in first.")
        return team

    def _check_csrf(self, request: Request, fields: Mapping[str, str]) -> None:
        """Refuse a form of a session that another site may have sent; a bearer token needs no form."""
        if request.headers.get("authorization", "").lower().startswith("bearer "):
            return
        self._refuse_cross_site(request)
        if not is_csrf_token(fields.get("csrf", ""), request.cookies.get(COOKIE, "")):
            raise HTTPException(403, "The form has expired; load the page again.")

    def _refuse_cross_site(self, request: Request) -> None:
        if is_cross_site(request):
            raise HTTPException(403, "Requests of other sites are refused.")

    async def _own_form(self, request: Request) -> dict[str, str]:
        form = await self._form(request)
        self._check_csrf(request, form)
        return form

    async def _form(self, request: Request) -> dict[str, str]:
        """A form without a file, at most :data:`MAX_FORM` bytes."""
        from urllib.parse import parse_qsl

        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_FORM:
                raise HTTPException(413, "The form is too large.")
        try:
            return dict(parse_qsl(body.decode("utf-8"), max_num_fields=20))
        except ValueError:
            raise HTTPException(400, "The form is malformed.") from None

    def _limit(self, name: str, request: Request, key: str = "") -> None:
        client = request.client.host if request.client else ""
        seconds = self._limits[name].wait(key or client)
        if seconds:
            raise HTTPException(
                429, f"Too many requests; wait {seconds} seconds.", {"Retry-After": str(seconds)}
            )


def _wants_json(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")


def _summary(snapshot: Snapshot, one: Submission | Refusal, selected: tuple[int, ...]) -> dict[str, Any]:
    """A row of the page of a team."""
    common = {"arrived": f"{one.arrived:%Y-%m-%d %H:%M:%S}", "reason": one.reason}
    if isinstance(one, Refusal):
        return {**common, "status": "refused", "number": None, "score": None, "selected": False}
    version = max(one.scores, default=None)
    score = None
    if version is not None:
        score = one.scores[version]["metrics"][snapshot.versions[version - 1].metrics[0]]
    return {
        **common,
        "status": "scored, late" if one.late and one.status == "scored" else one.status,
        "number": one.number,
        "score": score,
        "selected": one.number in selected,
    }
