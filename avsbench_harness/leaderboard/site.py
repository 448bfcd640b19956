"""The leaderboard as a static HTML site that works from the file system, without requests to other hosts.

Tables and scores come from the records. Training logs, submissions and the data set add plots and clips; a
page names each of these inputs that is not available.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.files import sha256_json, write_text
from avsbench_harness.leaderboard.cells import (
    EXPLANATION,
    REPORTED_HEADINGS,
    REPORTED_NOTE,
    SYNTHETIC_NOTE,
    format_rows,
    headings,
    reported_rows,
    speed_note,
)
from avsbench_harness.leaderboard.run_page import run_page
from avsbench_harness.leaderboard.tables import Table, build_tables
from avsbench_harness.results.folder import Results
from avsbench_harness.results.record import Record
from avsbench_harness.results.reported import reported_values
from avsbench_harness.tasks import TASKS

#: Returns the data set of a record, ``None`` if it is not available.
FindData = Callable[[Record], Dataset | None]


def build_site(results: Results, site: Path, find_data: FindData = lambda record: None) -> Path:
    """Write the site; return its index page.

    Args:
        results: content of the folder with the records. Training logs are read from ``runs/`` next to it,
            predictions from ``submissions/``.
        site: folder to write; existing pages are replaced.
        find_data: finds the data set of a record, for the galleries.
    """
    records = results.records
    tables = build_tables(records, results)
    templates = files("avsbench_harness.leaderboard") / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (templates / name).read_text(encoding="utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def render(path: Path, template: str, **values: Any) -> None:
        root = "../" * len(path.parent.parts)
        write_text(site / path, environment.get_template(template).render(root=root, **values))

    for name in ("site.css", "site.js"):
        write_text(site / name, (templates / name).read_text(encoding="utf-8"))
    runs = [{"file": page_name(record), "name": record.run_id} for record in records]
    render(Path("compare.html"), "compare.html", title="Compare two runs", runs=runs)
    for record in records:
        page = run_page(record, tables, results.folder, site, find_data(record))
        render(Path("runs") / page_name(record), "run.html", title=record.run_id, **page)
    render(
        Path("index.html"),
        "index.html",
        title="Leaderboard",
        explanation=EXPLANATION,
        synthetic_note=SYNTHETIC_NOTE,
        tables=[_table(table) for table in tables],
        backbones=sorted({record.backbone for record in records if record.backbone}),
        reported_note=REPORTED_NOTE,
        reported_headings=REPORTED_HEADINGS,
        reported=[
            {"title": task.title, "rows": reported_rows(task.name, reported_values())}
            for task in TASKS.values()
        ],
    )
    return site / "index.html"


def page_name(record: Record) -> str:
    """File name of a record's page; a hash, because the run id may be untrusted."""
    return f"{sha256_json(record.run_id)[:16]}.html"


def _table(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "synthetic": table.synthetic,
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
