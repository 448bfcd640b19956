"""The page of one run: what it is, its scores, curves and distributions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from avsbench_harness.errors import AvsbError, one_line
from avsbench_harness.leaderboard.formatting import percent
from avsbench_harness.leaderboard.site.charts import Chart, histogram, threshold_chart, training_charts
from avsbench_harness.leaderboard.site.gallery import clip_scores
from avsbench_harness.leaderboard.site.metrics import explain
from avsbench_harness.leaderboard.site.run_inputs import RunInputs
from avsbench_harness.method import methods
from avsbench_harness.recipe.schema import Recipe
from avsbench_harness.results.recipe_changes import change_text, recipe_label
from avsbench_harness.results.record import Record, ScoreEntry, classes_file
from avsbench_harness.robustness.conditions import CLEAN
from avsbench_harness.scoring import score_submission
from avsbench_harness.submission import read_solution, read_submission
from avsbench_harness.tasks import CLASSES

_DAMAGED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def run_values(record: Record, inputs: RunInputs) -> dict[str, Any]:
    """The values of the template ``run.html`` that depend on the run alone.

    Args:
        record: record of the run.
        inputs: the other inputs of its pages.
    """
    missing: list[str] = []
    charts = [*_curves(record, inputs, missing), *_distribution(record, inputs)]
    charts += _thresholds(record, inputs, missing) if record.status == "done" else []
    return {
        "record": record,
        "recipe": recipe_label(record),
        "changes": [change_text(key, value) for key, value in (inputs.changes or {}).items()],
        "scores": [_score_table(entry) for entry in record.scores],
        "charts": charts,
        "classes": _classes(record, inputs),
        "missing": missing,
        "method": _method(record),
        "facts": _facts(record),
        "spec": None if record.spec is None else yaml.safe_dump(record.spec, sort_keys=False),
    }


def _curves(record: Record, inputs: RunInputs, missing: list[str]) -> list[Chart]:
    """Loss, validation and learning rate from the training log."""
    if not record.scores or inputs.log is None:
        if record.training is not None and record.scores:
            missing.append("n/a: training curves (the training log is not available)")
        return []
    metric = record.scores[0].main[0]
    try:
        lines = _log_lines(inputs.log)
        losses = [(float(line["step"]), float(line["loss"])) for line in lines if "loss" in line]
        losses = [(step, loss) for step, loss in losses if np.isfinite(loss)]
        scored = [
            (float(line["step"]), float(line["val"][metric]))
            for line in lines
            if line.get("val", {}).get(metric) is not None
        ]
        rates = [(float(line["step"]), float(line["lr"])) for line in lines if "lr" in line]
        rates = rates or _scheduled(record, lines)
        selected = record.training.selected_step if record.training else None
        return training_charts(losses, scored, rates, metric, selected)
    except _DAMAGED as error:
        missing.append(f"n/a: training curves (the training log is damaged: {one_line(error, 100)})")
        return []


def _scheduled(record: Record, lines: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """The learning rate that the recipe's schedule gives at each step, for logs without it."""
    from avsbench_harness.engine.optim import lr_factor

    if record.spec is None or record.training is None:
        return []
    try:
        recipe = Recipe.parse(record.spec["recipe"], record.run_id)
    except AvsbError:  # a recipe of another version
        return []
    total = record.training.steps
    epochs = {int(line["step"]): int(line["epoch"]) for line in lines if "epoch" in line and "step" in line}
    return [
        (float(step), recipe.optimizer.lr * lr_factor(recipe.schedule, step - 1, total, epoch - 1))
        for step, epoch in sorted(epochs.items())
        if 0 < step <= total
    ]


def _log_lines(log: Path) -> list[dict[str, Any]]:
    """The entries of a training log, without lines that a kill has torn."""
    entries = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


def _distribution(record: Record, inputs: RunInputs) -> list[Chart]:
    if not record.scores:
        return []
    metric = record.scores[0].main[0]
    values = clip_scores(inputs.results.folder, record, metric)
    return [histogram(np.array(list(values.values()), np.float64), metric)] if values else []


def _thresholds(record: Record, inputs: RunInputs, missing: list[str]) -> list[Chart]:
    """F over the thresholds, from the submission and its ground truth."""
    if inputs.solution is None:
        missing.append("n/a: threshold curve (the submission or its ground truth is not available)")
        return []
    entry = record.scores[0]
    if entry.protocol != "object/1":
        return []
    try:
        with ExitStack() as stack:
            submission = stack.enter_context(read_submission(inputs.submissions[CLEAN]))
            solution = stack.enter_context(read_solution(inputs.solution))
            curve = score_submission(submission, solution).mean_curve
    except (AvsbError, OSError) as error:
        missing.append(f"n/a: threshold curve ({one_line(error, 200)})")
        return []
    if curve is None or not np.isfinite(curve).any():
        return []
    return [threshold_chart(curve, entry.metrics.get("F"), entry.metrics.get("F_half"))]


def _classes(record: Record, inputs: RunInputs) -> list[dict[str, Any]]:
    """Name, IoU and number of frames of every class that occurs, best first."""
    path = classes_file(inputs.results.folder / f"{record.run_id}.json")
    if not path.is_file():
        return []
    sums = pd.read_csv(path).groupby("class")[["IoU", "frames"]].sum()
    found = [
        {
            "name": CLASSES[int(str(index))],
            "iou": float(row["IoU"] / row["frames"]),
            "frames": int(row["frames"]),
        }
        for index, row in sums[sums["frames"] > 0].iterrows()
    ]
    return sorted(found, key=lambda one: (-one["iou"], one["name"]))


def _score_table(entry: ScoreEntry) -> dict[str, Any]:
    return {
        "protocol": entry.protocol if entry.batch is None else f"{entry.protocol} (batch {entry.batch})",
        "clips": entry.clips,
        "part": entry.part,
        "rows": [
            {
                "metric": metric,
                "main": metric in entry.main,
                "explanation": explain(metric),
                "text": _score_text(metric, value),
                "value": value if value is not None and metric != "classes_seen" else None,
                "interval": entry.intervals.get(metric),
                "range": " to ".join(percent(end) for end in entry.intervals.get(metric) or ()),
            }
            for metric, value in entry.metrics.items()
        ],
    }


def _score_text(metric: str, value: float | None) -> str:
    if value is None:
        return "n/a"
    return f"{value:g} classes" if metric == "classes_seen" else percent(value)


def _method(record: Record) -> dict[str, str] | None:
    """Facts of an installed method; ``None`` if a record names another one."""
    found = methods().get(record.method)
    if found is None or found.method is None:
        return None
    method = found.method
    return {
        "paper": method.paper,
        "url": method.url,
        "variants": ", ".join(method.variants),
        "tasks": ", ".join(method.tasks),
        "backbones": ", ".join(method.backbones),
        "card": method.card(),
    }


def _facts(record: Record) -> list[tuple[str, list[tuple[str, Any]]]]:
    """Headed groups of facts of a run."""
    environment, training, spec = record.environment, record.training, record.spec or {}
    weights = spec.get("backbone_weights") or {}
    audio = spec.get("audio") or {}
    run = [
        ("task", record.task),
        ("variant", record.variant),
        ("backbone", record.backbone),
        ("seed", record.seed),
        ("created", record.created),
        ("spec hash", record.spec_hash),
    ]
    data = [
        ("data set", f"{record.data.name}, {record.data.split}"),
        ("ground truth", record.data.solution),
        ("fingerprint", record.data.fingerprint),
        ("backbone weights", weights.get("name") if isinstance(weights, dict) else None),
        ("audio encoder", audio.get("encoder") if isinstance(audio, dict) else None),
        ("weights, SHA-256", training.weights_sha256 if training else None),
        ("submission, SHA-256", record.submission_sha256),
    ]
    machine = [
        ("device", environment.device),
        ("threads", environment.threads),
        ("harness", environment.harness),
        ("commit", environment.git.commit if environment.git else None),
        ("packages", ", ".join(f"{name} {version}" for name, version in environment.packages.items())),
    ]
    cost: list[tuple[str, Any]] = []
    if training is not None:
        cost += [("steps", f"{training.steps} (selected: {training.selected_step})")]
        cost += [("training", f"{training.seconds / 60:.1f} min")]
        speed, memory = training.clips_per_second, training.memory_gib
        cost += [("speed", f"{speed:.2f} clips/s" if speed else None)]
        cost += [("memory", f"{memory:.1f} GiB" if memory else None)]
    if record.cost is not None:
        cost += [("parameters", f"{record.cost.parameters / 1e6:.2f} M")]
        cost += [("multiply-accumulates", f"{record.cost.gmacs:.2f} GMACs per clip")]
    groups = [("Run", run), ("Data and weights", data), ("Cost", cost), ("Environment", machine)]
    return [
        (title, [(name, "n/a" if value is None else value) for name, value in rows])
        for title, rows in groups
        if rows
    ]
