"""Data of a run for the comparison page: scores on resamples and per clip, recipe and environment.

The paired interval of two runs is that of the differences of their scores on the same resamples of the same
clips; both have the random seed of :mod:`avsbench_harness.scoring.bootstrap`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from avsbench_harness.errors import AvsbError, one_line
from avsbench_harness.leaderboard.site.gallery import clip_scores, run_label
from avsbench_harness.leaderboard.site.pages import run_key
from avsbench_harness.leaderboard.site.run_inputs import RunInputs
from avsbench_harness.results.paired_bootstrap import read_clip_sums
from avsbench_harness.results.record import Record
from avsbench_harness.scoring.api import canonical
from avsbench_harness.scoring.bootstrap import resampled_sums


def run_summary(record: Record) -> dict[str, Any]:
    """The entry of a scored run in the list of the comparison page."""
    return {
        "key": run_key(record),
        "id": record.run_id,
        "label": run_label(record),
        "preset": record.preset or "submitted",
        "task": record.task,
        "data": f"{record.data.name}, {record.data.split}",
        "solution": (record.data.solution or "")[:12],
    }


def run_data(record: Record, inputs: RunInputs, gallery: str) -> dict[str, Any]:
    """The data of a scored run.

    Args:
        record: the record.
        inputs: the inputs of its pages.
        gallery: name of its gallery, empty without one.
    """
    entry = record.score(canonical(record.task)) or record.scores[0]
    folder = inputs.results.folder
    metrics: list[dict[str, Any]] = [
        {"name": name, "value": value, "interval": entry.intervals.get(name), "resampled": None}
        for name, value in entry.metrics.items()
    ]
    clips: list[str] = []
    scores: dict[str, list[float | None]] = {}
    try:
        table = read_clip_sums(folder / f"{record.run_id}.json", entry.protocol)
        clips = list(table.clips)
        chunks = [table.reduce(sums) for (sums,) in resampled_sums([table.sums])] if len(clips) > 1 else []
        for metric in metrics:
            name = str(metric["name"])
            if chunks and name in entry.main:
                values = np.concatenate([np.atleast_1d(chunk[name]) for chunk in chunks])
                metric["resampled"] = [round(float(value), 6) for value in values]
        for name in entry.main:
            found = clip_scores(folder, record, name)
            if found:
                scores[name] = [_number(found.get(clip)) for clip in clips]
    except AvsbError:
        pass  # without per-clip files there are no intervals
    return {
        **run_summary(record),
        "gallery": gallery,
        "protocol": entry.protocol,
        "main": list(entry.main),
        "metrics": metrics,
        "clips": clips,
        "scores": scores,
        "recipe": list(_flat((record.spec or {}).get("recipe", {}))),
        "environment": _environment(record),
    }


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 5)


def _flat(values: object, prefix: str = "") -> Iterator[list[str]]:
    """Dotted keys and values of nested mappings."""
    if isinstance(values, Mapping) and values:
        for key, value in values.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    elif prefix:
        yield [one_line(prefix, 100), one_line(values, 200)]


def _environment(record: Record) -> list[list[str]]:
    environment = record.environment
    facts = {
        "device": environment.device,
        "threads": environment.threads,
        "harness": environment.harness,
        "commit": environment.git.commit if environment.git else "n/a",
        "python": environment.python,
        "platform": environment.platform,
        **environment.packages,
    }
    return [[name, one_line(value, 120)] for name, value in facts.items()]
