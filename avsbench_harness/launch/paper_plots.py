"""Figures for papers from submissions and records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avsbench_harness.ablation import tables as tables
from avsbench_harness.data.images import read_frame
from avsbench_harness.errors import MissingDataError, UsageError, unknown
from avsbench_harness.launch.default_dataset import choose_dataset
from avsbench_harness.launch.resolve_solution import ground_truth
from avsbench_harness.results import plots
from avsbench_harness.results.record import read_records
from avsbench_harness.scoring import score_submission
from avsbench_harness.submission import read_solution, read_submission
from avsbench_harness.submission.codes import OBJECT
from avsbench_harness.tasks import MASK_SIZE, get_task

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def threshold_figure(submissions: Sequence[Path], solution: Path | None, data: Path | None) -> Figure:
    """F over the thresholds of each submission.

    Raises:
        UsageError: a submission is of a task without thresholds.
    """
    curves = []
    for path in submissions:
        with read_submission(path) as predicted:
            truth = ground_truth(predicted.header, solution, data)
            with read_solution(truth) as known:
                curve = score_submission(predicted, known).mean_curve
        if curve is None:
            raise UsageError(f"{path} is of {predicted.header.task}, which has no thresholds.")
        curves.append((predicted.header.method, path, curve))
    names = [name for name, _, _ in curves]
    return plots.threshold_curves(
        {name if names.count(name) == 1 else f"{name} ({path.stem})": curve for name, path, curve in curves}
    )


def ablation_figure(
    name: str, results: Path, metric: str | None, task: str | None, backbone: str | None
) -> Figure:
    """Bars of an ablation's rows.

    Raises:
        MissingDataError: there are no records of it.
        UsageError: there are several tables of it, or no such metric.
    """
    method, ablation = tables.get_ablation(name)
    if not results.is_dir():
        raise MissingDataError(f"There is no folder {results}; `avsb ablate run {name}` makes one.")
    made = [
        section
        for section in tables.sections(method, ablation, read_records(results), results)
        if task in (None, section.task) and backbone in (None, section.backbone)
    ]
    if not made:
        raise MissingDataError(f"{results} has no records of {name}; `avsb ablate run {name}` makes them.")
    if len(made) > 1:
        found = ", ".join(sorted({f"{section.task} with {section.backbone}" for section in made}))
        raise UsageError(
            f"There are {len(made)} tables of {name} ({found}); choose by --task and --backbone."
        )
    (section,) = made
    known = tables.METRICS[get_task(section.task).semantic]
    chosen = metric or known[0]
    if chosen not in known:
        raise unknown("metric", chosen, known)
    rows = [row for row in section.rows if tables.values(row, section.task, chosen)]
    return plots.ablation_bars(
        [row.row.name for row in rows],
        [float(np.mean(tables.values(row, section.task, chosen))) for row in rows],
        [None if not row.row.set else _interval(row, chosen) for row in rows],
        chosen,
    )


def clip_figure(
    submissions: Sequence[Path], clips: Sequence[str], solution: Path | None, data: Path | None
) -> Figure:
    """Frames of clips with outlines, a row per clip and submission.

    Raises:
        UsageError: the data set has no such clip.
    """
    strips, labels = [], []
    for path in submissions:
        with read_submission(path) as predicted:
            header = predicted.header
            task = get_task(header.task)
            dataset = choose_dataset(task, data)
            known = {clip.id: clip for clip in dataset.clips(header.split)}  # type: ignore[arg-type]
            with read_solution(ground_truth(header, solution, data)) as truth:
                for clip in clips:
                    if clip not in known:
                        raise unknown(f"clip of {dataset.root}", clip, known)
                    codes = predicted.read(clip)
                    mask = codes if task.semantic else (codes >= OBJECT).astype(np.uint8)
                    frames = np.stack([read_frame(frame, MASK_SIZE) for frame in known[clip].frames])
                    strips.append(plots.strip(frames, truth.read(clip), mask))
                    labels.append(f"{header.method}\n{clip}")
    figure = plots.new_figure(8.0, 8.0 * sum(strip.shape[0] / strip.shape[1] for strip in strips) + 0.2)
    for axes, strip, label in zip(
        np.atleast_1d(figure.subplots(len(strips), 1)), strips, labels, strict=True
    ):
        axes.imshow(strip)
        axes.set(xticks=[], yticks=[])
        axes.set_ylabel(label, fontsize=6)
    return figure


def _interval(row: tables.Measured, metric: str) -> tuple[float, float]:
    found = row.gaps.get(metric)
    if found is None:
        return (np.nan, np.nan)
    return found.interval or (found.value, found.value)
