"""Pages of a competition: the same templates for the static board and for the server; no page has scripts."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from avsbench_harness.errors import printable
from avsbench_harness.files import write_json, write_text
from avsbench_harness.host.board import challenge_board
from avsbench_harness.host.challenge import Challenge

#: Longest text of others on a page, in characters.
MAX_TEXT = 20_000

TIES = {
    "interval": "A row shares the rank of the first row of that rank if its score lies within that row's "
    "95 % interval.",
    "date": "Of equal scores the earlier submission is ranked first.",
}


def template(name: str) -> str:
    """The text of a template or style sheet."""
    return (files("avsbench_harness.host") / "templates" / name).read_text(encoding="utf-8")


def _neutral(value: Any) -> Any:
    """A value of a page: text of others without control characters, and cut off if it is very long."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return printable(value[:MAX_TEXT])


_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FunctionLoader(template),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=_neutral,
    undefined=jinja2.ChainableUndefined,
)


def render(name: str, **values: Any) -> str:
    """A page from a template; text is escaped."""
    return _ENVIRONMENT.get_template(name).render(**values)


def markdown(text: str) -> Markup:
    """Markdown of the host as HTML; HTML in it is escaped, and links to scripts are not links."""
    from markdown_it import MarkdownIt

    rendered: str = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    return Markup(rendered)


def board_values(challenge: Challenge) -> dict[str, Any]:
    """The values of the board's page: the public board, and the private one after the reveal."""
    boards = [challenge_board(challenge, "public")]
    if challenge.snapshot().revealed is not None:
        boards.insert(0, challenge_board(challenge, "private"))
    return {"boards": boards, "ties": TIES[challenge.definition.ties]}


def write_board(challenge: Challenge, out: Path) -> Path:
    """Write the boards as a static page, its style sheet and ``board.json``; return the page."""
    values = board_values(challenge)
    title = challenge.definition.title
    page = render("board.html", title="Leaderboard", competition=title, root="", **values)
    write_text(out / "site.css", template("site.css"))
    write_json(out / "board.json", [board.to_json() for board in values["boards"]])
    write_text(out / "index.html", page)
    return out / "index.html"
