"""The leaderboard as a static HTML site that works from the file system, without requests to other hosts.

Tables and scores come from the records. Training logs, submissions and the data set add plots and clips; a
page names each of these inputs that is not available.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from avsbench_harness import __version__
from avsbench_harness.errors import printable
from avsbench_harness.files import sha256_json, write_text
from avsbench_harness.leaderboard.cells import (
    EXPLANATION,
    MINI_NOTE,
    REPORTED_NOTE,
    SYNTHETIC_NOTE,
    format_rows,
    headings,
    speed_note,
)
from avsbench_harness.leaderboard.reported_rows import reported_rows
from avsbench_harness.leaderboard.run_page import FindData, RunInputs, run_page
from avsbench_harness.leaderboard.tables import Table, build_tables
from avsbench_harness.results.folder import Results
from avsbench_harness.results.record import Record
from avsbench_harness.results.reported import reported_values
from avsbench_harness.tasks import TASKS

#: Longest untrusted text on a page, in characters.
MAX_TEXT = 20_000


def build_site(results: Results, site: Path, find_data: FindData = lambda record: None) -> Path:
    """Write the pages that changed; return the index page.

    A run page names its inputs by a hash, and is kept while its inputs are the same and its images exist.
    Pages of runs that have no valid record any more are removed.

    Args:
        results: content of the folder with the records. Training logs are read from ``runs/`` next to it,
            predictions from ``submissions/``.
        site: folder to write.
        find_data: finds the data set of a record, for the galleries.
    """
    pages = _Pages(site)
    records = results.records
    tables = build_tables(records, results)
    for name in ("site.css", "site.js"):
        pages.write(Path(name), _template(name))
    runs = [{"file": page_name(record), "name": record.run_id} for record in records]
    pages.render(Path("compare.html"), "compare.html", title="Compare two runs", runs=runs)
    peers = _peers(tables)
    for record in records:
        path = Path("runs") / page_name(record)
        inputs = RunInputs.find(record, results, peers.get(record.run_id, ()), find_data)
        digest = sha256_json([pages.version, inputs.digest])
        if not pages.is_current(path, digest):
            page = run_page(record, inputs, site)
            pages.render(path, "run.html", title=record.run_id, inputs=digest, **page)
    _remove_others(site / "runs", {page_name(record) for record in records})
    pages.render(
        Path("index.html"),
        "index.html",
        title="Leaderboard",
        explanation=EXPLANATION,
        tables=[_table(table) for table in tables],
        refused=results.refusals,
        backbones=sorted({record.backbone for record in records if record.backbone}),
        reported_note=REPORTED_NOTE,
        reported_headings=("method", "backbone", "reported (%)", "source", "protocol"),
        reported=[
            {
                "title": task.title,
                "rows": [
                    (
                        row.method,
                        source.backbone,
                        source.text,
                        f"{source.paper}, {source.table}",
                        source.protocol,
                    )
                    for row in reported_rows(task.name, reported_values())
                    for source in row.sources
                ],
            }
            for task in TASKS.values()
        ],
    )
    return site / "index.html"


class _Pages:
    """The pages of a site, each written only if its content differs.

    Attributes:
        version: hash of the templates and the harness's version, part of the inputs of every page.
    """

    def __init__(self, site: Path) -> None:
        self.site = site
        self.version = sha256_json([__version__, _template("base.html"), _template("run.html")])
        self._environment = jinja2.Environment(
            loader=jinja2.FunctionLoader(_template),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_neutral,
        )

    def write(self, path: Path, text: str) -> None:
        """Write a file, unless it has this content."""
        if _content(self.site / path) != text:
            write_text(self.site / path, text)

    def render(self, path: Path, template: str, **values: Any) -> None:
        """Write a page from a template."""
        root = "../" * len(path.parent.parts)
        self.write(path, self._environment.get_template(template).render(root=root, **values))

    def is_current(self, path: Path, digest: str) -> bool:
        """Whether a run page has these inputs and all of its images and recordings exist."""
        text = _content(self.site / path) or ""
        media = re.findall(r'src="\.\./(media/[^"]+)"', text)
        return f'<meta name="inputs" content="{digest}">' in text and all(
            (self.site / name).is_file() for name in media
        )


def _template(name: str) -> str:
    return (files("avsbench_harness.leaderboard") / "templates" / name).read_text(encoding="utf-8")


def _content(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def _neutral(value: Any) -> Any:
    """A value of a page: untrusted text without control characters, and cut off if it is very long."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    kept = printable(value[:MAX_TEXT])
    return kept if len(value) <= MAX_TEXT else f"{kept}..."


def _peers(tables: Sequence[Table]) -> dict[str, list[Record]]:
    """All records in the tables of a record, by run id."""
    found: dict[str, list[Record]] = defaultdict(list)
    for table in tables:
        members = [record for row in table.rows for record in row.records]
        for record in members:
            found[record.run_id] = members if record.run_id not in found else found[record.run_id] + members
    return found


def _remove_others(folder: Path, names: set[str]) -> None:
    """Remove the run pages with other names; other files are kept."""
    for path in folder.glob("*.html"):
        if path.name not in names and re.fullmatch(r"[0-9a-f]{16}", path.stem):
            path.unlink()


def page_name(record: Record) -> str:
    """File name of a record's page; a hash, because the run id may be untrusted."""
    return f"{sha256_json(record.run_id)[:16]}.html"


def _table(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "synthetic": table.synthetic,
        "data_note": SYNTHETIC_NOTE if table.synthetic else MINI_NOTE if table.mini else "",
        "protocol": table.protocol,
        "solution": table.solution[:12],
        "note": speed_note(table),
        "headings": headings(table),
        "rows": [
            {
                "backbone": row.backbone,
                "cells": row.cells,
                "runs": [{"label": label, "file": page_name(record)} for label, record in row.records],
            }
            for row in format_rows(table)
        ],
    }
