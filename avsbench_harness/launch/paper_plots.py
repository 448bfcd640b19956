"""Plots for papers from submissions and records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avsbench_harness.ablation.definition import get_ablation
from avsbench_harness.ablation.tables import METRICS, MeasuredRow, measured_tables, measured_values
from avsbench_harness.analysis import plots
from avsbench_harness.errors import MissingDataError, UsageError, one_line, unknown
from avsbench_harness.launch.datasets import choose_dataset
from avsbench_harness.launch.resolve_solution import ground_truth
from avsbench_harness.results.folder import read_results
from avsbench_harness.results.robustness import read_robustness, robustness_files
from avsbench_harness.scoring import score_submission
from avsbench_harness.submission import read_solution, read_submission
from avsbench_harness.submission.strips import PREDICTION, TRUTH, clip_strip
from avsbench_harness.tasks import get_task

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def threshold_plot(submissions: Sequence[Path], solution: Path | None, data: Path | None) -> Figure:
    """F over the 255 thresholds, one curve per submission.

    Args:
        submissions: submissions to s4 or ms3.
        solution: ground truth; ``None`` takes it from ``data`` or the cache.
        data: folder of the data set.

    Raises:
        UsageError: a submission is for a task without thresholds.
    """
    curves = []
    for path in submissions:
        with read_submission(path) as predicted:
            truth = ground_truth(predicted.header, solution, data)
            with read_solution(truth) as known:
                curve = score_submission(predicted, known).mean_curve
        if curve is None:
            raise UsageError(f"{path} is for {predicted.header.task}, which has no thresholds.")
        curves.append((predicted.header.method, path, curve))
    names = [name for name, _, _ in curves]
    return plots.threshold_curves(
        {name if names.count(name) == 1 else f"{name} ({path.stem})": curve for name, path, curve in curves}
    )


def ablation_plot(
    name: str, results: Path, metric: str | None, task: str | None, backbone: str | None
) -> Figure:
    """Bars of the rows of an ablation table.

    Args:
        name: ``method/table``.
        results: folder with the records.
        metric: metric to show; ``None`` for the first of the table.
        task, backbone: select one of several tables.

    Raises:
        MissingDataError: there are no records of the table.
        UsageError: there are several tables, or the metric is unknown.
    """
    method, ablation = get_ablation(name)
    if not results.is_dir():
        raise MissingDataError(f"There is no folder {results}; create it with `avsb ablate run {name}`.")
    tables = [
        table
        for table in measured_tables(method, ablation, read_results(results).records, results)
        if task in (None, table.task) and backbone in (None, table.backbone)
    ]
    if not tables:
        raise MissingDataError(
            f"{results} has no records of {name}; create them with `avsb ablate run {name}`."
        )
    if len(tables) > 1:
        found = ", ".join(sorted({f"{table.task} with {table.backbone}" for table in tables}))
        raise UsageError(
            f"There are {len(tables)} tables of {name} ({found}); select one with --task and --backbone."
        )
    (table,) = tables
    known = METRICS[get_task(table.task).semantic]
    chosen = metric or known[0]
    if chosen not in known:
        raise unknown("metric", chosen, known)
    return plots.ablation_bars(
        [row.row.name for row in table.rows],
        [float(np.mean(measured_values(row, table.task, chosen) or [np.nan])) for row in table.rows],
        [None if not row.row.set else _interval(row, chosen) for row in table.rows],
        chosen,
    )


def clip_plot(
    submissions: Sequence[Path], clips: Sequence[str], solution: Path | None, data: Path | None
) -> Figure:
    """Frames of clips with outlines of ground truth and prediction, one row per submission and clip.

    Args:
        submissions: submissions.
        clips: ids of the clips.
        solution: ground truth; ``None`` takes it from ``data`` or the cache.
        data: folder of the data set.

    Raises:
        UsageError: the data set does not have a clip.
    """
    from matplotlib.lines import Line2D

    strips, labels = [], []
    for path in submissions:
        with read_submission(path) as predicted:
            header = predicted.header
            dataset = choose_dataset(get_task(header.task), data)
            known = {clip.id: clip for clip in dataset.clips(header.split)}  # type: ignore[arg-type]
            with read_solution(ground_truth(header, solution, data)) as truth:
                for clip in clips:
                    if clip not in known:
                        raise unknown(f"clip of {dataset.root}", clip, known)
                    strips.append(clip_strip(known[clip], predicted, truth))
                    category = known[clip].category
                    labels.append("\n".join(filter(None, (header.method, clip, category))))
    figure = plots.new_figure(
        8.0, 8.0 * sum(strip.shape[0] / strip.shape[1] + 0.03 for strip in strips) + 0.4
    )
    for axes, strip, label in zip(
        np.atleast_1d(figure.subplots(len(strips), 1)), strips, labels, strict=True
    ):
        axes.imshow(strip)
        frames = strip.shape[1] // strip.shape[0]
        places = (np.arange(frames) + 0.5) * strip.shape[0]
        axes.set_xticks(places, [f"second {second + 1}" for second in range(frames)], fontsize=6)
        axes.tick_params(length=0)
        axes.set(yticks=[])
        axes.set_ylabel(label, fontsize=6)
    figure.legend(
        handles=[
            Line2D([], [], color=TRUTH, label="ground truth"),
            Line2D([], [], color=PREDICTION, label="prediction"),
        ],
        loc="outside lower center",
        ncols=2,
        fontsize=7,
        frameon=False,
    )
    return figure


def curve_plot(run_folder: Path) -> Figure:
    """Training curves of a run.

    Args:
        run_folder: folder of the run, with its ``log.jsonl``.

    Raises:
        MissingDataError: there is no log.
        UsageError: the log is damaged.
    """
    log = run_folder / "log.jsonl"
    if not log.is_file():
        raise MissingDataError(f"There is no training log {log}; pass the folder of a run, as in runs/.")
    try:
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        scored = [line["val"] for line in lines if "val" in line]
        metric = next((name for name in ("J", "mIoU") if scored and name in scored[0]), "J")
        return plots.training_curves(lines, metric)
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise UsageError(f"The training log {log} is damaged ({one_line(error, 100)}).") from None


def robustness_plot(results: Path, metric: str | None) -> Figure:
    """A metric of all runs with a robustness record on the test split, by audio condition.

    Args:
        results: folder with the records.
        metric: main metric; ``None`` for the first.

    Raises:
        MissingDataError: there are no robustness records.
        UsageError: they are of several data sets, or the metric is unknown.
    """
    records = [read_robustness(path) for path in robustness_files(results)]
    records = [record for record in records if record.data.split == "test"]
    if not records:
        raise MissingDataError(f"{results} has no robustness records; create them with `avsb robustness`.")
    if len({record.data.solution for record in records}) > 1:
        raise UsageError(
            f"The robustness records in {results} are of several data sets; plot one folder per set."
        )
    known = records[0].conditions[0].score.main
    chosen = metric or known[0]
    if chosen not in known:
        raise unknown("metric", chosen, known)
    rows = {
        record.run_id: {
            entry.condition: value
            for entry in record.conditions
            if (value := entry.score.metrics.get(chosen)) is not None
        }
        for record in records
    }
    return plots.robustness_bars(rows, chosen)


def _interval(row: MeasuredRow, metric: str) -> tuple[float, float]:
    """The interval of the row's difference to the full method; NaN if there is no difference."""
    found = row.differences.get(metric)
    if found is None:
        return (np.nan, np.nan)
    return found.interval or (found.value, found.value)
