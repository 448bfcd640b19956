"""Files of the site: pages from templates, scripts, styles and data, each written only if it differs."""

from __future__ import annotations

import functools
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from avsbench_harness import __version__
from avsbench_harness.errors import one_line, printable
from avsbench_harness.files import sha256_json, write_text
from avsbench_harness.results.record import Record

#: Longest untrusted text on a page, in characters.
MAX_TEXT = 20_000

#: Files that every site contains.
STATIC = ("site.css", "site.js", "table.js", "scatter.js", "clips.js", "gallery.js", "compare.js")


class Pages:
    """The files of a site.

    Attributes:
        site: folder of the site.
        version: hash of the templates, the package's modules and version; part of the inputs of every page.
        written: every file of the site that belongs to the present records, relative to the site.
    """

    def __init__(self, site: Path) -> None:
        self.site = site
        self.version = _version()
        self.written: set[Path] = set()
        self._environment = jinja2.Environment(
            loader=jinja2.FunctionLoader(_template),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_neutral,
            undefined=jinja2.StrictUndefined,
        )

    def write(self, path: Path, text: str) -> None:
        """Write a file, unless it has this content."""
        self.written.add(path)
        if _content(self.site / path) != text:
            write_text(self.site / path, text)

    def write_static(self) -> None:
        """Write the scripts and the style."""
        folder = files("avsbench_harness.leaderboard.site") / "static"
        for name in STATIC:
            self.write(Path(name), (folder / name).read_text(encoding="utf-8"))

    def write_data(self, path: Path, kind: str, values: Any) -> None:
        """Write values as a script that passes them to the site's scripts.

        A page that is opened from the file system can load scripts, but not JSON files.

        Args:
            path: the file, relative to the site.
            kind: the function of ``avsb`` that receives the values.
            values: JSON values; non-ASCII text and "<" are escaped.
        """
        text = json.dumps(_plain(values), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
        self.write(path, f"avsb.{kind}({text.replace('<', chr(92) + 'u003c')});\n")

    def render(self, path: Path, template: str, **values: Any) -> None:
        """Write a page from a template."""
        root = "../" * len(path.parent.parts)
        self.write(path, self._environment.get_template(template).render(root=root, **values))

    def is_current(self, path: Path, digest: str) -> bool:
        """Whether a page has these inputs; it then counts as written."""
        current = f'<meta name="inputs" content="{digest}">' in (_content(self.site / path) or "")
        if current:
            self.written.add(path)
        return current

    def remove_others(self) -> None:
        """Remove pages and data of runs that have no valid record any more; other files are kept."""
        for folder in ("runs", "data", "clips"):
            for path in (self.site / folder).glob("*"):
                known = path.relative_to(self.site) in self.written
                if not known and re.fullmatch(r"[0-9a-f]{16}\.[a-z.]+", path.name):
                    path.unlink()


@functools.cache
def _version() -> str:
    """Hash of everything in this package that decides the content of a page."""
    package = files("avsbench_harness.leaderboard.site")
    sources = [
        path.read_text(encoding="utf-8")
        for folder in (package, package / "templates", package / "static")
        for path in sorted(folder.iterdir(), key=lambda one: one.name)
        if path.name.endswith((".py", ".html", ".js", ".css"))
    ]
    return sha256_json([__version__, *sources])


def _template(name: str) -> str:
    folder = files("avsbench_harness.leaderboard.site") / "templates"
    return (folder / name).read_text(encoding="utf-8")


def _content(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def _neutral(value: Any) -> Any:
    """A value of a page: untrusted text without control characters, and cut off if it is very long."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    kept = printable(value[:MAX_TEXT])
    return kept if len(value) <= MAX_TEXT else f"{kept}..."


def _plain(values: Any) -> Any:
    """JSON values with neutralised text, and null for numbers that are not finite."""
    if isinstance(values, dict):
        return {key: _plain(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    if isinstance(values, str):
        return values if values.isascii() and values.isprintable() else one_line(values, MAX_TEXT)
    if isinstance(values, float):
        return values if abs(values) < float("inf") else None
    return values


def file_name(*parts: str) -> str:
    """A safe file name derived from untrusted text: 16 hexadecimal digits."""
    return sha256_json(list(parts))[:16]


def run_key(record: Record) -> str:
    """Name of a record's files; a hash, because the run id may be untrusted."""
    return sha256_json(record.run_id)[:16]


def page_name(record: Record) -> str:
    """File name of a record's page."""
    return f"{run_key(record)}.html"
