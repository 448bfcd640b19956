"""The server through its ASGI interface, and as a process."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="needs the extra host")
pytest.importorskip("python_multipart", reason="needs the extra host")
httpx = pytest.importorskip("httpx", reason="needs httpx")

from starlette.testclient import TestClient  # noqa: E402

from avsbench_harness.host.board import reveal  # noqa: E402
from avsbench_harness.host.definition import write_definition  # noqa: E402
from avsbench_harness.host.security import csrf_token  # noqa: E402
from avsbench_harness.host.server import Settings, build_app  # noqa: E402

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture
def server(competition) -> Iterator:
    """Opens clients of one running application, each with cookies of its own."""
    app = build_app(competition.challenge, Settings(logins=1000, uploads=1000, requests=100_000))
    with TestClient(app, base_url="http://avs.test") as first:

        def client(team: str | None = None) -> TestClient:
            other = TestClient(app, base_url="http://avs.test", follow_redirects=False)
            other.portal = first.portal
            if team is not None:
                token = competition.tokens[team]
                assert other.post("/login", data={"token": token}).status_code == 303
            return other

        yield client


def upload(client, path: Path, **fields: str):
    values = {"csrf": csrf_token(client.cookies["avsb_session"]), "field.paper": "none", **fields}
    with path.open("rb") as file:
        return client.post("/submit", data=values, files={"file": ("mine.npz", file)})


def scored(client, number: int) -> dict:
    for _ in range(300):
        receipt = client.get(f"/submissions/{number}", headers={"accept": "application/json"}).json()
        if receipt["status"] != "pending":
            return receipt
        time.sleep(0.1)
    raise TimeoutError


def test_log_in_upload_score_and_board(competition, server) -> None:
    client = server("Alpha")
    path = competition.predict("mine", {"public": 0.6, "private": 0.37})
    assert upload(client, path).status_code == 303
    receipt = scored(client, 1)
    assert receipt["status"] == "scored"
    value = receipt["public"]["metrics"]["J"]
    assert f"{100 * value:.2f}" in client.get("/submissions").text
    assert f"{100 * value:.2f} %" in client.get("/submissions/1").text
    board = server().get("/board")
    assert "Alpha" in board.text
    assert f"{100 * value:.2f}" in board.text
    assert server().get("/board.json").json()[0]["rows"][0]["metrics"]["J"] == value
    # The state is that of the folder workflow.
    assert competition.challenge.snapshot().submissions[1].scores[1]["metrics"]["J"] == value
    assert (competition.challenge.receipts / f"{receipt['ticket']}.json").is_file()


def test_a_token_in_the_header_needs_no_session(competition, server) -> None:
    path = competition.predict("mine", {"public": 0.6, "private": 0.37})
    headers = {"authorization": f"Bearer {competition.tokens['Beta']}", "accept": "application/json"}
    client = server()
    with path.open("rb") as file:
        answer = client.post("/submit", data={"field.paper": "x"}, files={"file": file}, headers=headers)
    assert answer.status_code == 202
    assert answer.json()["team"] == "Beta"
    with path.open("rb") as file:
        answer = client.post("/submit", data={"field.paper": "x"}, files={"file": file}, headers=headers)
    assert answer.json()["status"] == "refused"
    assert "same as that of submission 1" in answer.json()["reason"]
    for wrong in ("x", "avsb_" + "0" * 64):
        headers["authorization"] = f"Bearer {wrong}"
        assert client.get("/submissions", headers=headers).status_code == 401


def test_another_team_cannot_read_or_select_a_submission(competition, server, redefine) -> None:
    owner, other = server("Alpha"), server("Beta")
    upload(owner, competition.predict("mine", {"public": 0.6, "private": 0.37}))
    assert owner.get("/submissions/1").status_code == 200
    assert other.get("/submissions/1").status_code == 404
    assert other.get("/submissions/1").text == other.get("/submissions/7").text
    assert "mine" not in other.get("/submissions").text
    token = {"csrf": csrf_token(other.cookies["avsb_session"]), "selected": "yes"}
    assert other.post("/submissions/1/select", data=token).status_code == 400
    assert server().get("/submissions/1").status_code == 303  # to the login


def test_forged_forms_are_refused(competition, server) -> None:
    client, path = server("Alpha"), competition.predict("mine", {"public": 0.6, "private": 0.37})
    assert upload(client, path, csrf="").status_code == 403
    assert upload(client, path, csrf=csrf_token("another session")).status_code == 403
    assert client.post("/logout", data={}).status_code == 403
    own = csrf_token(client.cookies["avsb_session"])
    for headers in ({"origin": "http://evil.test"}, {"sec-fetch-site": "cross-site"}):
        assert client.post("/logout", data={"csrf": own}, headers=headers).status_code == 403
        answer = server().post("/login", data={"token": competition.tokens["Beta"]}, headers=headers)
        assert answer.status_code == 403
    assert competition.challenge.snapshot().submissions == {}
    assert list(competition.challenge.files.iterdir()) == []
    assert (
        client.post("/logout", data={"csrf": own}, headers={"origin": "http://avs.test"}).status_code == 303
    )
    assert client.get("/submissions").status_code == 303


def test_headers_of_every_answer(server) -> None:
    client = server()
    for path in ("/", "/board", "/board.json", "/rules", "/login", "/submit", "/nowhere", "/site.css"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
    assert client.get("/submit").headers["cache-control"] == "no-store"
    cookie = client.post("/login", data={"token": "x"}).headers.get("set-cookie")
    assert cookie is None


def test_cookies_are_hidden_from_scripts_and_other_sites(competition) -> None:
    app = build_app(competition.challenge, Settings(workers=0, https=True))
    client = TestClient(app, base_url="https://avs.test", follow_redirects=False)
    cookie = client.post("/login", data={"token": competition.tokens["Alpha"]}).headers["set-cookie"]
    assert {"HttpOnly", "Secure", "SameSite=strict"} <= set(re.split("; ?", cookie))
    assert client.get("/").headers["strict-transport-security"]


def test_text_of_strangers_is_escaped(competition, server) -> None:
    competition.challenge.rename_team("Alpha", '<b onclick="x">A</b>')
    competition.tokens['<b onclick="x">A</b>'] = competition.tokens["Alpha"]
    client = server("Alpha")
    upload(client, competition.predict("<i>method</i>", {"public": 0.6, "private": 0.37}.copy()))
    scored(client, 1)
    for path in ("/", "/board", "/rules", "/submissions", "/submissions/1"):
        text = client.get(path).text
        assert "<b onclick" not in text
        assert "<i>" not in text
        assert "<script" not in text
    assert "&lt;script&gt;" in client.get("/").text
    assert "<strong>sounding</strong>" in client.get("/").text


def test_large_uploads_are_refused_before_they_are_read(competition, server, redefine) -> None:
    client = server("Alpha")
    token = csrf_token(client.cookies["avsb_session"])
    headers = {"content-length": str(10**12), "content-type": "multipart/form-data; boundary=B"}
    assert client.post("/submit", content=b"", headers=headers).status_code == 413
    assert client.post("/submit", data={"csrf": token}).status_code == 400
    assert client.post("/logout", content=b"x" * 20_000).status_code == 413


def test_rate_limits(competition) -> None:
    app = build_app(competition.challenge, Settings(workers=0, logins=3, uploads=2, requests=8))
    client = TestClient(app, base_url="http://avs.test", follow_redirects=False)
    answers = [client.post("/login", data={"token": f"avsb_{'0' * 64}"}) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [403, 403, 403, 429, 429]
    assert int(answers[-1].headers["retry-after"]) > 0
    headers = {"authorization": f"Bearer {competition.tokens['Beta']}"}
    codes = [client.post("/submit", content=b"", headers=headers).status_code for _ in range(4)]
    assert codes == [400, 400, 429, 429]
    assert client.get("/board").status_code == 200
    assert client.get("/board").status_code == 429


def test_private_scores_are_in_no_response_before_the_reveal(played) -> None:
    one, _, _ = played
    app = build_app(one.challenge, Settings(workers=0, requests=100_000, logins=100))
    private = one.challenge.private_scores(1).values()
    secret = {
        text
        for _, scores in private
        for value in scores["metrics"].values()
        for text in (f"{value:.6f}"[:-1], f"{value:.4f}", f"{100 * value:.2f}")
    }
    paths = ["/", "/board", "/board.json", "/rules", "/login", "/submit", "/submissions", "/site.css"]
    paths += [f"/submissions/{number}" for number in range(7)]
    paths += ["/private/state.sqlite", "/../private/state.sqlite", "/log", "/submissions/1/select"]

    def responses() -> Iterator[tuple[str, str]]:
        for team in (None, "Alpha", "Beta", "Gamma"):
            for accept in ("text/html", "application/json"):
                client = TestClient(app, base_url="http://avs.test", follow_redirects=False)
                if team is not None:
                    client.post("/login", data={"token": one.tokens[team]})
                for path in paths:
                    answer = client.get(path, headers={"accept": accept})
                    yield f"{team} {path} {answer.headers}", answer.text

    def found() -> list[str]:
        return [
            where
            for where, text in responses()
            for number in secret
            if re.search(rf"(?<![0-9]){re.escape(number)}", text)
        ]

    assert found() == []
    one.clock.set(22)
    reveal(one.challenge)
    assert found()


def test_selection_on_the_page(competition, redefine) -> None:
    from avsbench_harness.host.challenge import Challenge

    write_definition(competition.folder, redefine(counts="selected"))
    with Challenge(competition.folder, clock=competition.clock) as challenge:
        app = build_app(challenge, Settings(workers=0))
        client = TestClient(app, base_url="http://avs.test", follow_redirects=False)
        client.post("/login", data={"token": competition.tokens["Alpha"]})
        upload(client, competition.predict("x", {"public": 0.6, "private": 0.37}), selected="yes")
        assert challenge.snapshot().selected == {1: (1,)}
        assert "cancel" in client.get("/submissions").text
        values = {"csrf": csrf_token(client.cookies["avsb_session"]), "selected": "no"}
        assert client.post("/submissions/1/select", data=values).status_code == 303
        assert challenge.snapshot().selected == {1: ()}


def test_a_defect_tells_nothing(competition, monkeypatch) -> None:
    app = build_app(competition.challenge, Settings(workers=0))

    def broken() -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(competition.challenge, "snapshot", broken)
    client = TestClient(app, base_url="http://avs.test", raise_server_exceptions=False)
    answer = client.get("/board")
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert "content-security-policy" in answer.headers


@pytest.mark.slow
def test_the_process_logs_no_secret(competition, redefine, environment) -> None:
    now = [{"name": "now", "start": "2020-01-01", "end": "2099-01-01"}]
    write_definition(competition.folder, redefine(phases=now))
    token = competition.tokens["Alpha"]
    command = [sys.executable, "-m", "avsbench_harness", "challenge", "serve", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--challenge", str(competition.folder)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = line.split()[-1]
        with httpx.Client(base_url=address, follow_redirects=False, timeout=30) as client:
            client.post("/login", data={"token": token})
            session = client.cookies["avsb_session"]
            path = competition.predict("mine", {"public": 0.6, "private": 0.37})
            assert upload(client, path).status_code == 303
            assert scored(client, 1)["status"] == "scored"
            client.get("/submissions", headers={"authorization": f"Bearer {token}"})
    finally:
        process.terminate()
    output, _ = process.communicate(timeout=60)
    assert "POST /submit" in output
    for secret in (token, token[5:], session, csrf_token(session)):
        assert secret not in line + output
