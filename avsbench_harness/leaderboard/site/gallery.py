"""Galleries: all clips of a split with the predictions of every run on it, one page per ground truth."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from avsbench_harness.data.clip import Clip
from avsbench_harness.errors import AvsbError, one_line
from avsbench_harness.files import sha256_json
from avsbench_harness.leaderboard.cells import method_label
from avsbench_harness.leaderboard.site.clip_media import (
    clip_key,
    mask_png,
    media_folder,
    predicted_labels,
    write_clip,
    write_masks,
)
from avsbench_harness.leaderboard.site.pages import Pages, file_name, page_name, run_key
from avsbench_harness.leaderboard.site.run_inputs import RunInputs
from avsbench_harness.results.record import Record, clips_file
from avsbench_harness.results.robustness import read_robustness, robustness_files
from avsbench_harness.results.robustness_tables import read_tables
from avsbench_harness.robustness.conditions import CLEAN
from avsbench_harness.submission import Solution, Submission, read_solution, read_submission
from avsbench_harness.tasks import CLASSES, TASKS, get_task


@dataclass(frozen=True)
class Member:
    """A run of a gallery."""

    record: Record
    inputs: RunInputs


def gallery_page(solution: str) -> Path:
    """The page of the gallery of a ground truth, relative to the site."""
    return Path("clips") / f"{file_name(solution)}.html"


def write_galleries(pages: Pages, members: Sequence[Member]) -> dict[str, str]:
    """Write the galleries of all ground truths with predictions and data.

    Args:
        pages: the site.
        members: all runs of the site.

    Returns:
        by run id the reason why a run is in no gallery, or only partly; empty text if it is complete.
    """
    groups: dict[str, list[Member]] = {}
    notes = {}
    for member in members:
        record, inputs = member.record, member.inputs
        if record.status != "done":
            continue
        if inputs.solution is None:
            notes[record.run_id] = "n/a: clips (the submission or its ground truth is not available)"
        elif inputs.dataset is None:
            notes[record.run_id] = "n/a: clips (the data set is not available; pass --data)"
        else:
            groups.setdefault(record.data.solution or "", []).append(member)
    for solution, found in groups.items():
        notes |= _write_gallery(pages, solution, found)
    return notes


def _write_gallery(pages: Pages, solution: str, members: Sequence[Member]) -> dict[str, str]:
    """Write one gallery; returns the notes of its runs."""
    first = members[0]
    record, dataset = first.record, first.inputs.dataset
    assert first.inputs.solution is not None
    assert dataset is not None
    semantic = get_task(record.task).semantic
    clips = {clip.id: clip for clip in dataset.clips(record.data.split)}  # type: ignore[arg-type]
    folder = media_folder(solution)
    notes = {}
    with read_solution(first.inputs.solution) as truth:
        clips = {name: clip for name, clip in clips.items() if name in truth.shapes}
        for clip in clips.values():
            write_clip(pages, folder, clip, truth.read(clip.id), semantic)
        conditions: dict[str, list[str]] = {}
        for member in members:
            run_id = member.record.run_id
            try:
                conditions[run_id] = _write_predictions(pages, folder, member, truth, list(clips))
                notes[run_id] = ""
            except (AvsbError, OSError) as error:
                notes[run_id] = f"n/a: clips ({one_line(error, 200)})"
    shown = [member for member in members if member.record.run_id in conditions]
    values = _gallery_values(shown, clips, conditions, folder)
    name = gallery_page(solution)
    pages.write_data(name.with_suffix(".js"), "receiveGallery", values)
    title = f"Clips of {TASKS[record.task].title}: {record.data.name}, {record.data.split}"
    pages.render(
        name,
        "gallery.html",
        title=title,
        gallery=name.stem,
        synthetic=record.data.synthetic,
        runs=[{"key": run_key(one.record), "label": run_label(one.record)} for one in shown],
        semantic=semantic,
    )
    return notes


def run_label(record: Record) -> str:
    """Method, backbone and seed of a run, for headings."""
    seed = "" if record.seed is None else f" s{record.seed}"
    return one_line(f"{method_label(record.method, record.variant)} {record.backbone or ''}{seed}", 80)


def _gallery_values(
    members: Sequence[Member], clips: Mapping[str, Clip], conditions: Mapping[str, list[str]], folder: Path
) -> dict[str, Any]:
    """The data of a gallery's page: runs, clips and the score of every run on every clip."""
    record = members[0].record if members else None
    task = get_task(record.task) if record else None
    metric = record.scores[0].main[0] if record and record.scores else "J"
    scores = {
        one.record.run_id: clip_scores(one.inputs.results.folder, one.record, metric) for one in members
    }
    return {
        "key": folder.name,
        "media": folder.as_posix(),
        "metric": metric,
        "task": record.task if record else "",
        "classes": list(CLASSES) if task is not None and task.semantic else None,
        "runs": [
            {
                "key": run_key(one.record),
                "id": one.record.run_id,
                "label": run_label(one.record),
                "page": f"runs/{page_name(one.record)}",
                "conditions": conditions[one.record.run_id],
                "scores": [_rounded(scores[one.record.run_id].get(clip)) for clip in clips],
            }
            for one in members
        ],
        "clips": [
            {"key": clip_key(clip.id), "id": clip.id, "category": clip.category, "frames": len(clip.frames)}
            for clip in clips.values()
        ],
    }


def _write_predictions(
    pages: Pages, folder: Path, member: Member, truth: Solution, clips: Sequence[str]
) -> list[str]:
    """Write the predictions of a run under all conditions, unless they are current; return the conditions."""
    record, inputs = member.record, member.inputs
    run, semantic = run_key(record), get_task(record.task).semantic
    marker = folder / run / "inputs.js"
    digest = sha256_json([pages.version, inputs.digest, clips])
    tables = _condition_tables(inputs.results.folder, record)
    with ExitStack() as stack:
        opened: dict[str, Submission] = {}
        for name, path in inputs.submissions.items():
            submission = stack.enter_context(read_submission(path))
            header = submission.header
            if (header.solution, header.split) == (record.data.solution, record.data.split):
                opened[name] = submission
        current = pages.site / marker
        if current.is_file() and digest in current.read_text(encoding="utf-8"):
            return list(opened)
        metric = record.scores[0].main[0]
        own = clip_scores(inputs.results.folder, record, metric)
        for clip in clips:
            masks: dict[str, dict[str, Any]] = {}
            size = truth.shapes[clip][1:]
            for name, submission in opened.items():
                if clip not in submission.shapes:
                    continue
                labels = predicted_labels(submission.read(clip), (size[0], size[1]), semantic)
                source, score = tables.get(name, {}).get(clip, (clip, None))
                masks[name] = {
                    "mask": mask_png(labels[: truth.shapes[clip][0]], semantic),
                    "score": _rounded(own.get(clip) if name == CLEAN else score),
                    "source": "" if source == clip else clip_key(source),
                    "sourceId": "" if source == clip else source,
                }
            write_masks(pages, folder, run, clip, masks)
        pages.write_data(marker, "receiveInputs", digest)
    return list(opened)


def _condition_tables(results: Path, record: Record) -> dict[str, dict[str, tuple[str, float | None]]]:
    """By audio condition and clip: the clip whose recording was used, and the score.

    Empty without a valid robustness record.
    """
    found: dict[str, dict[str, tuple[str, float | None]]] = {}
    for path in robustness_files(results):
        try:
            measured = read_robustness(path)
            if (measured.run_id, measured.data.solution) != (record.run_id, record.data.solution):
                continue
            metric = record.scores[0].main[0]
            for name, table in read_tables(path, measured).items():
                values = table.sums.columns.get(metric, np.full(len(table.sums.clips), np.nan))
                found[name] = {
                    clip: (table.sources[clip], float(value))
                    for clip, value in zip(table.sums.clips, values, strict=True)
                }
        except (AvsbError, OSError, ValueError, KeyError):
            continue  # refused robustness records are listed on the index page
    return found


@functools.lru_cache(maxsize=256)
def _clip_table(path: Path, size: int, modified: int) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"clip": str}, keep_default_na=False, na_values={"F": [""], "J": [""]})


def clip_scores(results: Path, record: Record, metric: str) -> dict[str, float]:
    """A metric of a record by clip id; empty without a per-clip file with this metric."""
    path = clips_file(results / f"{record.run_id}.json")
    if not path.is_file():
        return {}
    table = _clip_table(path, path.stat().st_size, path.stat().st_mtime_ns)
    if metric not in table:
        return {}
    return dict(zip(table["clip"], table[metric].astype(float), strict=True))


def _rounded(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 5)
