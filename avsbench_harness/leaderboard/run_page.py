"""The page of one run in the HTML site: scores, plots, clips and facts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml

from avsbench_harness.analysis import plots
from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.engine.solutions import find_solution
from avsbench_harness.errors import AvsbError
from avsbench_harness.files import sha256_json
from avsbench_harness.leaderboard.formatting import percent
from avsbench_harness.leaderboard.gallery import GalleryClip, choose_clips, draw_gallery
from avsbench_harness.leaderboard.tables import Table
from avsbench_harness.results.record import Record, classes_file, clips_file
from avsbench_harness.scoring import score_submission
from avsbench_harness.submission import read_solution, read_submission
from avsbench_harness.tasks import CLASSES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def run_page(
    record: Record, tables: Sequence[Table], results: Path, site: Path, dataset: Dataset | None
) -> dict[str, Any]:
    """The values of the template ``run.html``; writes plots and clips to ``media/`` of the site.

    Args:
        record: record of the run.
        tables: the leaderboard tables, for the other runs in the run's table.
        results: folder with the records.
        site: folder of the site.
        dataset: data set of the run, ``None`` if not available.
    """
    page = _RunPage(record, results, site)
    page.add_result_plots()
    if record.status == "done":
        page.add_predictions(_other_runs(record, tables), dataset)
    return {
        "record": record,
        "scores": _score_rows(record),
        "plots": page.plots,
        "gallery": page.gallery,
        "metric": page.metric,
        "missing": page.missing,
        "facts": _facts(record),
        "spec": None if record.spec is None else yaml.safe_dump(record.spec, sort_keys=False),
    }


class _RunPage:
    """Plots and clips of a run, and notes about those that are not available."""

    def __init__(self, record: Record, results: Path, site: Path) -> None:
        self.record = record
        self.results = results
        self.site = site
        self.metric = record.scores[0].main[0] if record.scores else ""
        self.plots: list[dict[str, str]] = []
        self.gallery: list[GalleryClip] = []
        self.missing: list[str] = []

    def add_result_plots(self) -> None:
        """Add training curves, the histogram over clips and the bars per class, if their files exist."""
        log = self.results.parent / "runs" / self.record.run_id / "log.jsonl"
        if self.record.scores and log.is_file():
            lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
            self._add_plot("training", "Loss and validation", plots.training_curves(lines, self.metric))
        elif self.record.training is not None:
            self.missing.append("n/a: training curves (the training log is not available)")
        path = self.results / f"{self.record.run_id}.json"
        if clips_file(path).is_file() and self.record.scores:
            values = pd.read_csv(clips_file(path))[self.metric].to_numpy(np.float64)
            self._add_plot("clips", f"{self.metric} per clip", plots.clip_histogram(values, self.metric))
        if classes_file(path).is_file():
            sums = pd.read_csv(classes_file(path)).groupby("class")[["IoU", "frames"]].sum()
            sums = sums[sums["frames"] > 0]
            names = [CLASSES[index] for index in sums.index]
            iou = (sums["IoU"] / sums["frames"]).to_numpy(np.float64)
            self._add_plot("classes", "IoU per class", plots.class_bars(names, iou))

    def add_predictions(self, others: Sequence[Record], dataset: Dataset | None) -> None:
        """Add the threshold curve and the clips, if submission, ground truth and data are available."""
        path = self.results.parent / "submissions" / f"{self.record.run_id}.npz"
        truth = find_solution(self.record.data.solution or "") if path.is_file() else None
        if truth is None:
            self.missing.append(
                "n/a: threshold curve and clips (the submission or its ground truth is not available)"
            )
            return
        with ExitStack() as stack:
            submission = stack.enter_context(read_submission(path))
            solution = stack.enter_context(read_solution(truth))
            if self.record.scores[0].protocol == "object/1":
                curve = score_submission(submission, solution).mean_curve
                if curve is not None:
                    drawn = plots.threshold_curves({self.record.method: curve})
                    self._add_plot("thresholds", "F over the 255 thresholds", drawn)
            if dataset is None:
                self.missing.append("n/a: clips (the data set is not available; pass --data)")
                return
            table = _clip_table(self.results, self.record)
            try:
                chosen = choose_clips(table, self.metric, _mean_by_clip(others, self.metric, self.results))
                self.gallery = draw_gallery(
                    chosen, dataset, submission, solution, self.site, self.record.run_id
                )
            except AvsbError as error:
                self.missing.append(f"n/a: clips ({error})")

    def _add_plot(self, kind: str, caption: str, figure: Figure) -> None:
        path = Path("media") / f"{sha256_json([self.record.run_id, kind])[:16]}.png"
        plots.save(figure, self.site / path)
        self.plots.append({"src": path.as_posix(), "caption": caption})


def _other_runs(record: Record, tables: Sequence[Table]) -> list[Record]:
    """The other records of the tables that contain a record."""
    own = [table for table in tables if any(record in row.records for row in table.rows)]
    return [one for table in own for row in table.rows for one in row.records if one.run_id != record.run_id]


def _clip_table(results: Path, record: Record) -> pd.DataFrame:
    return pd.read_csv(clips_file(results / f"{record.run_id}.json"), dtype={"clip": str})


def _mean_by_clip(records: Sequence[Record], metric: str, results: Path) -> pd.Series[float] | None:
    """The mean score of the records by clip."""
    columns = [
        _clip_table(results, record).set_index("clip")[metric]
        for record in records
        if clips_file(results / f"{record.run_id}.json").is_file()
    ]
    return pd.concat(columns, axis=1).mean(axis=1) if columns else None


def _score_rows(record: Record) -> list[tuple[str, ...]]:
    """Protocol, clips, metric, value and interval of every score."""
    return [
        (
            entry.protocol,
            f"{entry.clips} ({entry.part})",
            metric,
            _score_text(metric, value),
            " to ".join(percent(end) for end in entry.intervals.get(metric) or ()),
        )
        for entry in record.scores
        for metric, value in entry.metrics.items()
    ]


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
