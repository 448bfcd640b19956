"""The pages in headless Chromium: log in, upload, see the score and the board; another team cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

pytest.importorskip("uvicorn", reason="needs the extra host")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")

from avsbench_harness.host.definition import write_definition  # noqa: E402

CHROMIUM = os.environ.get("AVSB_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]


@pytest.fixture
def address(competition, redefine, environment) -> Iterator[str]:
    """The address of a server process."""
    now = [{"name": "now", "start": "2020-01-01", "end": "2099-01-01"}]
    write_definition(competition.folder, redefine(phases=now, counts="selected"))
    command = [sys.executable, "-m", "avsbench_harness", "challenge", "serve", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--challenge", str(competition.folder)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield process.stdout.readline().split()[-1]
    process.terminate()
    process.communicate(timeout=60)


@pytest.fixture
def browser() -> Iterator:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def log_in(browser, address: str, token: str):
    """A page of a browser of its own, and what its console reports."""
    page = browser.new_context(viewport={"width": 390, "height": 800}).new_page()
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.goto(f"{address}/login")
    page.fill("input[name=token]", token)
    page.click("main button")
    return page, messages


def test_a_submission_in_the_browser(competition, address: str, browser) -> None:
    page, messages = log_in(browser, address, competition.tokens["Alpha"])
    assert page.url == f"{address}/submissions"
    assert "Log out Alpha" in page.inner_text("nav")
    page.click("text=Submit")
    page.fill("input[name='field.paper']", "none")
    page.check("input[name=selected]")
    path = competition.predict("mine", {"public": 0.6, "private": 0.37})
    page.set_input_files("input[name=file]", str(path))
    page.click("text=Upload")
    page.wait_for_selector("text=scored", timeout=120_000)  # the page reloads itself
    value = competition.challenge.snapshot().submissions[1].scores[1]["metrics"]["J"]
    assert f"{100 * value:.2f}" in page.inner_text("main")
    page.click("text=cancel")
    assert competition.challenge.snapshot().selected == {1: ()}
    page.click("text=Board")
    assert "Alpha" in page.inner_text("table")
    assert f"{100 * value:.2f}" in page.inner_text("table")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390
    # The policy blocks nothing that the pages need.
    assert not [message for message in messages if "Content Security Policy" in message]

    other, _ = log_in(browser, address, competition.tokens["Beta"])
    answer = other.goto(f"{address}/submissions/1")
    assert answer.status == 404
    assert "no such submission of your team" in other.inner_text("main")
    other.goto(f"{address}/submissions")
    assert "No submissions yet" in other.inner_text("main")
    other.click("text=Log out Beta")
    other.goto(f"{address}/submissions")
    assert other.url == f"{address}/login"


def test_a_wrong_token_is_refused(address: str, browser) -> None:
    page, _ = log_in(browser, address, "avsb_" + "0" * 64)
    assert "not valid" in page.inner_text("[role=status]")


def test_scripts_of_strangers_do_not_run(competition, address: str, browser) -> None:
    competition.challenge.rename_team("Alpha", "<img src=x onerror=alert(1)>")
    page, _ = log_in(browser, address, competition.tokens["Alpha"])
    asked: list[str] = []
    page.on("dialog", lambda dialog: asked.append(dialog.message))
    page.set_content("<script>document.title = 'run'</script>")
    page.goto(address)
    assert page.locator("img").count() == 0
    assert asked == []
