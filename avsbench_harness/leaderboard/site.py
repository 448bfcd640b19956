"""The leaderboard as a static site: works from the file system, offline, and asks nothing of other hosts.

Tables and numbers come from the records. What a page shows beside them comes from files that may lie next to
them: the run's log, its submission, the data set; a page says what is not at hand.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import yaml

from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.engine.solutions import find_solution
from avsbench_harness.errors import AvsbError
from avsbench_harness.files import sha256_json, write_text
from avsbench_harness.leaderboard import page
from avsbench_harness.leaderboard.gallery import Exhibit, choose, exhibits
from avsbench_harness.leaderboard.markdown import percent
from avsbench_harness.leaderboard.table import Row, Table, tables
from avsbench_harness.results import plots
from avsbench_harness.results.record import Record, classes_file, clips_file, read_records
from avsbench_harness.results.reported import figures as reported_figures
from avsbench_harness.scoring import score_submission
from avsbench_harness.submission import read_solution, read_submission
from avsbench_harness.tasks import CLASSES, TASKS

#: Finds the data set that a record was made on, ``None`` where it is not at hand.
FindData = Callable[[Record], Dataset | None]


def build(results: Path, site: Path, find_data: FindData = lambda record: None) -> Path:
    """Write the site; returns its first page.

    Args:
        results: folder with the records; logs are looked for in ``runs/`` beside it, and predictions in
            ``submissions/``.
        site: folder to write to; pages that are there are replaced.
        find_data: for the galleries.
    """
    records = read_records(results)
    made = tables(records, results)
    templates = files("avsbench_harness.leaderboard") / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (templates / name).read_text(encoding="utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("site.css", "site.js"):
        write_text(site / name, (templates / name).read_text(encoding="utf-8"))
    runs = [{"file": file_of(record), "name": record.run_id} for record in records]
    _render(environment, site / "compare.html", "compare.html", title="Compare two runs", root="", runs=runs)
    for record in records:
        peers = _peers(record, made)
        _render(
            environment,
            site / "runs" / file_of(record),
            "run.html",
            title=record.run_id,
            root="../",
            **_run_page(record, peers, results, site, find_data(record)),
        )
    index = site / "index.html"
    _render(
        environment,
        index,
        "index.html",
        title="Leaderboard",
        root="",
        tables=[_table(table) for table in made],
        backbones=sorted({record.backbone for record in records if record.backbone}),
        reported=_reported(),
    )
    return index


def file_of(record: Record) -> str:
    """The file name of a record's page; its id may come from a stranger's file."""
    return f"{sha256_json(record.run_id)[:16]}.html"


def _render(environment: jinja2.Environment, path: Path, template: str, **values: Any) -> None:
    write_text(path, environment.get_template(template).render(**values))


def _table(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "synthetic": table.synthetic,
        "protocol": table.protocol,
        "solution": table.solution[:12],
        "note": page.speed_note(table),
        "heads": [
            "rank", "method", "backbone", "recipe", *(heading for _, _, heading in table.columns), "reported",
            "seeds", "M parameters", "GMACs", "clips/s", "GiB", "date", "runs",
        ],
        "rows": [_row(row, table) for row in table.rows],
        "failed": [
            {"method": one.method, "backbone": one.backbone or "", "reason": one.reason, "file": file_of(one)}
            for one in table.failed
        ],
    }  # fmt: skip


def _row(row: Row, table: Table) -> dict[str, Any]:
    texts: list[tuple[str, float | str | None]] = [
        (str(row.rank), row.rank),
        (row.method + (f" ({row.variant})" if row.variant else ""), None),
        (row.backbone or "n/a", None),
        (row.recipe, None),
    ]
    for protocol, metric, _ in table.columns:
        values = row.values(protocol, metric, table.part)
        mean = statistics.fmean(values) if values else -1.0
        texts.append((page.value(row, table, protocol, metric), mean))
    newest = row.measured_with
    texts += [(page.reported(row, table), None), (str(len(row.records)), len(row.records))]
    texts += [(cell, None) for cell in page.cost_cells(row)]
    texts.append((newest.created[:10], newest.created[:10]))
    return {
        "backbone": row.backbone,
        "cells": [{"text": text, "sort": sort} for text, sort in texts],
        "runs": [
            {
                "file": file_of(record),
                "label": "record" if record.seed is None else f"s{record.seed}",
            }
            for record in row.records
        ],
    }


def _reported() -> list[dict[str, Any]]:
    return [
        {"title": task.title, "rows": page.reported_rows(task.name, reported_figures())}
        for task in TASKS.values()
    ]


def _peers(record: Record, made: Sequence[Table]) -> list[Record]:
    """The other records of the tables that a record stands in."""
    own = [table for table in made if any(record in row.records for row in table.rows)]
    return [one for table in own for row in table.rows for one in row.records if one.run_id != record.run_id]


def _run_page(
    record: Record, peers: Sequence[Record], results: Path, site: Path, dataset: Dataset | None
) -> dict[str, Any]:
    missing: list[str] = []
    shown = _figures(record, results, site, missing)
    metric = record.scores[0].main[0] if record.scores else ""
    gallery: list[Exhibit] = []
    if record.status == "done":
        gallery = _gallery(record, peers, metric, results, site, dataset, shown, missing)
    return {
        "record": record,
        "scores": [
            (
                entry.protocol,
                f"{entry.clips} ({entry.part})",
                metric_name,
                _score_text(metric_name, value),
                " to ".join(percent(end) for end in entry.intervals.get(metric_name) or ()),
            )
            for entry in record.scores
            for metric_name, value in entry.metrics.items()
        ],
        "figures": shown,
        "gallery": gallery,
        "metric": metric,
        "missing": missing,
        "facts": _facts(record),
        "spec": None if record.spec is None else yaml.safe_dump(record.spec, sort_keys=False),
    }


def _score_text(metric: str, value: float | None) -> str:
    if value is None:
        return "n/a"
    return f"{value:g} classes" if metric == "classes_seen" else percent(value)


def _facts(record: Record) -> list[tuple[str, Any]]:
    environment, training = record.environment, record.training
    facts: list[tuple[str, Any]] = [
        ("method", record.method),
        ("variant", record.variant),
        ("backbone", record.backbone),
        ("task", record.task),
        ("data", f"{record.data.name}, {record.data.split}"),
        ("ground truth", record.data.solution),
        ("seed", record.seed),
        ("created", record.created),
        ("device", environment.device),
        ("packages", ", ".join(f"{name} {version}" for name, version in environment.packages.items())),
        ("commit", environment.git.commit if environment.git else None),
    ]
    if training is not None:
        facts += [("steps", training.steps), ("training", f"{training.seconds:.0f} s")]
    if record.cost is not None:
        facts += [("parameters", record.cost.parameters), ("GMACs", round(record.cost.gmacs, 2))]
    return [(name, "n/a" if value is None else value) for name, value in facts]


def _figures(record: Record, results: Path, site: Path, missing: list[str]) -> list[dict[str, str]]:
    """Training curves, histogram and class bars, as far as their files are there."""
    shown: list[dict[str, str]] = []
    log = results.parent / "runs" / record.run_id / "log.jsonl"
    if record.scores and log.is_file():
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        drawn = plots.training_curves(lines, record.scores[0].main[0])
        shown.append(_save(drawn, site, record, "training", "Loss and validation"))
    elif record.training is not None:
        missing.append("n/a: training curves (the run's log is not here)")
    path = results / f"{record.run_id}.json"
    if clips_file(path).is_file() and record.scores:
        table = pd.read_csv(clips_file(path))
        metric = record.scores[0].main[0]
        drawn = plots.clip_histogram(table[metric].to_numpy(np.float64), metric)
        shown.append(_save(drawn, site, record, "clips", f"{metric} of the clips"))
    if classes_file(path).is_file():
        sums = pd.read_csv(classes_file(path)).groupby("class")[["IoU", "frames"]].sum()
        sums = sums[sums["frames"] > 0]
        names = [CLASSES[index] for index in sums.index]
        drawn = plots.class_bars(names, (sums["IoU"] / sums["frames"]).to_numpy(np.float64))
        shown.append(_save(drawn, site, record, "classes", "IoU per class"))
    return shown


def _gallery(
    record: Record,
    peers: Sequence[Record],
    metric: str,
    results: Path,
    site: Path,
    dataset: Dataset | None,
    shown: list[dict[str, str]],
    missing: list[str],
) -> list[Exhibit]:
    """The threshold curve and the clips, which need predictions, ground truth and data."""
    path = results.parent / "submissions" / f"{record.run_id}.npz"
    truth = find_solution(record.data.solution or "") if path.is_file() else None
    if truth is None:
        missing.append("n/a: threshold curve and clips (the submission or its ground truth is not here)")
        return []
    with ExitStack() as stack:
        submission = stack.enter_context(read_submission(path))
        solution = stack.enter_context(read_solution(truth))
        if record.scores[0].protocol == "object/1":
            curve = score_submission(submission, solution).mean_curve
            if curve is not None:
                drawn = plots.threshold_curves({record.method: curve})
                shown.append(_save(drawn, site, record, "thresholds", "F over the 255 thresholds"))
        if dataset is None:
            missing.append("n/a: clips (the data are not at hand; pass --data)")
            return []
        table = pd.read_csv(clips_file(results / f"{record.run_id}.json"), dtype={"clip": str})
        try:
            chosen = choose(table, metric, _mean_of(peers, metric, results))
            return exhibits(chosen, dataset, submission, solution, site, record.run_id)
        except AvsbError as error:
            missing.append(f"n/a: clips ({error})")
            return []


def _mean_of(peers: Sequence[Record], metric: str, results: Path) -> pd.Series[float] | None:
    """The mean score of other runs by clip."""
    found = [clips_file(results / f"{record.run_id}.json") for record in peers]
    columns = [
        pd.read_csv(path, dtype={"clip": str}).set_index("clip")[metric] for path in found if path.is_file()
    ]
    return pd.concat(columns, axis=1).mean(axis=1) if columns else None


def _save(drawn: Any, site: Path, record: Record, kind: str, caption: str) -> dict[str, str]:
    src = Path("media") / f"{sha256_json([record.run_id, kind])[:16]}.png"
    plots.save(drawn, site / src)
    return {"src": src.as_posix(), "caption": caption}
