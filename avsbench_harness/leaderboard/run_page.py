"""The page of one run in the HTML site: scores, plots, clips and facts."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml

from avsbench_harness.analysis import plots
from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.engine.solutions import find_solution
from avsbench_harness.errors import AvsbError, one_line
from avsbench_harness.files import sha256_json
from avsbench_harness.leaderboard.formatting import percent
from avsbench_harness.leaderboard.gallery import GalleryClip, choose_clips, draw_gallery
from avsbench_harness.results.folder import Results
from avsbench_harness.results.recipe_changes import change_text, recipe_changes, recipe_label
from avsbench_harness.results.record import Record, classes_file, clips_file
from avsbench_harness.scoring import score_submission
from avsbench_harness.submission import Solution, Submission, read_solution, read_submission
from avsbench_harness.tasks import CLASSES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


#: Returns the data set of a record, ``None`` if it is not available.
FindData = Callable[[Record], Dataset | None]

_DAMAGED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True)
class RunInputs:
    """Everything that a run page shows, apart from the record.

    Attributes:
        results: content of the results folder.
        log: training log, ``None`` if not available.
        submission, solution: predictions and ground truth, both or neither.
        dataset: data set of the run, ``None`` if not available or not needed.
        others: the other runs in the run's tables, for the gallery.
        changes: changes to the preset; ``None`` if it is not available.
    """

    results: Results
    log: Path | None
    submission: Path | None
    solution: Path | None
    dataset: Dataset | None
    others: Sequence[Record]
    changes: Mapping[str, Any] | None
    digest: str

    @classmethod
    def find(
        cls, record: Record, results: Results, members: Sequence[Record], find_data: FindData
    ) -> RunInputs:
        """The inputs of a record's page; ``members`` are all records in its tables."""
        root = results.folder.parent
        log: Path | None = root / "runs" / record.run_id / "log.jsonl"
        submission: Path | None = root / "submissions" / f"{record.run_id}.npz"
        solution = dataset = None
        if record.status == "done" and submission is not None and submission.is_file():
            solution = find_solution(record.data.solution or "")
        if solution is None:
            submission = None
        else:
            dataset = find_data(record)
        if log is not None and not log.is_file():
            log = None
        others = [one for one in members if one.run_id != record.run_id] if dataset is not None else []
        changes = recipe_changes(record)
        label = recipe_label(record)
        known = [
            results.keys[record.run_id],
            label,
            None if changes is None else [change_text(key, value) for key, value in changes.items()],
            *([path.stat().st_size, path.stat().st_mtime_ns] if path else None for path in (log, submission)),
            None if dataset is None else dataset.fingerprint(),
            [results.keys[one.run_id] for one in others],
        ]
        return cls(results, log, submission, solution, dataset, others, changes, sha256_json(known))


def run_page(record: Record, inputs: RunInputs, site: Path) -> dict[str, Any]:
    """The values of the template ``run.html``; writes plots and clips to ``media/`` of the site.

    Args:
        record: record of the run.
        inputs: the other inputs of its page.
        site: folder of the site.
    """
    page = _RunPage(record, inputs, site)
    page.add_result_plots()
    if record.status == "done":
        page.add_predictions()
    return {
        "record": record,
        "recipe": recipe_label(record),
        "changes": [change_text(key, value) for key, value in (inputs.changes or {}).items()],
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

    def __init__(self, record: Record, inputs: RunInputs, site: Path) -> None:
        self.record = record
        self.inputs = inputs
        self.results = inputs.results.folder
        self.site = site
        self.metric = record.scores[0].main[0] if record.scores else ""
        self.plots: list[dict[str, str]] = []
        self.gallery: list[GalleryClip] = []
        self.missing: list[str] = []

    def add_result_plots(self) -> None:
        """Add training curves, the histogram over clips and the bars per class, if their files exist."""
        if self.record.scores and self.inputs.log is not None:
            try:
                curves = plots.training_curves(_log_lines(self.inputs.log), self.metric)
                self._add_plot("training", "Loss and validation", curves)
            except _DAMAGED as error:
                self.missing.append(
                    f"n/a: training curves (the training log is damaged: {one_line(error, 100)})"
                )
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

    def add_predictions(self) -> None:
        """Add the threshold curve and the clips, if submission, ground truth and data are available."""
        if self.inputs.submission is None or self.inputs.solution is None:
            self.missing.append(
                "n/a: threshold curve and clips (the submission or its ground truth is not available)"
            )
            return
        try:
            with ExitStack() as stack:
                submission = stack.enter_context(read_submission(self.inputs.submission))
                solution = stack.enter_context(read_solution(self.inputs.solution))
                self._add_threshold_curve(submission, solution)
                self._add_gallery(submission, solution)
        except (AvsbError, OSError) as error:
            self.missing.append(f"n/a: clips ({one_line(error, 200)})")

    def _add_threshold_curve(self, submission: Submission, solution: Solution) -> None:
        if self.record.scores[0].protocol == "object/1":
            curve = score_submission(submission, solution).mean_curve
            if curve is not None:
                drawn = plots.threshold_curves({self.record.method: curve})
                self._add_plot("thresholds", "F over the 255 thresholds", drawn)

    def _add_gallery(self, submission: Submission, solution: Solution) -> None:
        dataset = self.inputs.dataset
        if dataset is None:
            self.missing.append("n/a: clips (the data set is not available; pass --data)")
            return
        table = _clip_table(clips_file(self.results / f"{self.record.run_id}.json"))
        others = _mean_by_clip(self.inputs.others, self.metric, self.results)
        chosen = choose_clips(table, self.metric, others)
        self.gallery = draw_gallery(chosen, dataset, submission, solution, self.site, self.record.run_id)

    def _add_plot(self, kind: str, caption: str, figure: Figure) -> None:
        path = Path("media") / f"{sha256_json([self.record.run_id, kind])[:16]}.png"
        plots.save(figure, self.site / path)
        self.plots.append({"src": path.as_posix(), "caption": caption})


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


@functools.lru_cache(maxsize=256)
def _clip_table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"clip": str}, keep_default_na=False, na_values={"F": [""], "J": [""]})


def _mean_by_clip(records: Sequence[Record], metric: str, results: Path) -> pd.Series[float] | None:
    """The mean score of the records by clip."""
    columns = [
        _clip_table(clips_file(results / f"{record.run_id}.json")).set_index("clip")[metric]
        for record in records
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
