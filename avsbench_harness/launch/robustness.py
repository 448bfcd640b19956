"""Finished runs under audio conditions: prediction, scores and the robustness record."""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from avsbench_harness.engine.predict import submission_header
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.solutions import solution_file
from avsbench_harness.errors import AvsbError, MissingDataError, SubmissionError, UsageError, unknown
from avsbench_harness.files import sha256_file
from avsbench_harness.launch.execute import predict
from avsbench_harness.launch.records import score_entry
from avsbench_harness.results.record import DataEntry
from avsbench_harness.results.robustness import (
    ConditionEntry,
    GainEntry,
    RobustnessRecord,
    read_robustness,
    robustness_faults,
    robustness_file,
    write_robustness,
)
from avsbench_harness.robustness.conditions import CLEAN, CONDITIONS, SWAPPED
from avsbench_harness.robustness.overlap import clip_overlaps
from avsbench_harness.robustness.pairs import Pairs
from avsbench_harness.run_names import match_prefix
from avsbench_harness.scoring import Scores, compare, score_submission
from avsbench_harness.scoring.scores import Floats
from avsbench_harness.submission import Solution, read_solution, read_submission
from avsbench_harness.tasks import Split

logger = logging.getLogger(__name__)

#: Selects all finished runs.
ALL = "all"


def finished_runs(patterns: Sequence[str], out: Path) -> list[str]:
    """The ids of the finished runs in ``out`` that match any of the patterns, sorted.

    Args:
        patterns: run ids, unique prefixes or shell patterns of them, or ``all``.
        out: the folder that holds ``runs/``.

    Raises:
        MissingDataError: there is no finished run.
        UsageError: a pattern matches none.
    """
    known = sorted(path.parent.name for path in (out / "runs").glob("*/training.json"))
    if not known:
        raise MissingDataError(
            f"There are no finished runs in {out / 'runs'}; train one with `avsb run`, or pass --out."
        )
    found: set[str] = set()
    for pattern in patterns:
        matching = known if pattern == ALL else fnmatch.filter(known, pattern)
        if not matching and (name := match_prefix(pattern, known)):
            matching = [name]
        if not matching:
            raise unknown("finished run", pattern, known)
        found.update(matching)
    return sorted(found)


def measure_robustness(run: Run, split: Split) -> RobustnessRecord:
    """Predict and score a finished run under swapped audio, and write its robustness record.

    A submission that exists is used; a valid record is returned as it is.

    Raises:
        UsageError: the record exists and is not valid, or no recordings can be swapped.
        AvsbError: the method's own prediction ignores the condition.
    """
    path = robustness_file(run.out / "results", run.id, split)
    if path.is_file():
        faults = list(robustness_faults(path))
        if faults:
            raise UsageError(f"{path} is not valid ({faults[0]}); remove it to measure the run again.")
        logger.info(f"{run.id} is measured: {path}.")
        return read_robustness(path)
    with ExitStack() as stack:
        truth = stack.enter_context(read_solution(solution_file(run.dataset, split)))
        files = {name: _submission(replace(run, condition=name), split, truth) for name in (CLEAN, SWAPPED)}
        opened = {name: stack.enter_context(read_submission(file)) for name, file in files.items()}
        clips = set(opened[SWAPPED].shapes)
        scores = {
            name: score_submission(submission, truth, clips=clips) for name, submission in opened.items()
        }
        overlaps = clip_overlaps(opened[CLEAN], opened[SWAPPED], scores[SWAPPED].clips)
        left_out = [clip for clip in truth.clips if clip not in clips]
    make_pairs = CONDITIONS[SWAPPED].pairs
    assert make_pairs is not None  # it uses recordings of other clips
    pairs = make_pairs(run.dataset, split)
    record = RobustnessRecord(
        run_id=run.id,
        spec_hash=run.spec.hash,
        task=run.task.name,
        data=DataEntry(
            name=run.dataset.name,
            split=split,
            synthetic=run.dataset.synthetic,
            solution=truth.fingerprint,
            fingerprint=run.spec.data.fingerprint,
        ),
        left_out=left_out,
        conditions=[
            ConditionEntry(
                condition=CLEAN,
                submission_sha256=sha256_file(files[CLEAN]),
                score=score_entry(scores[CLEAN]),
            ),
            ConditionEntry(
                condition=SWAPPED,
                submission_sha256=sha256_file(files[SWAPPED]),
                score=score_entry(scores[SWAPPED]),
                pairs=pairs.fingerprint,
                gain=_gains(scores[CLEAN], scores[SWAPPED]),
                sensitivity=float(1 - overlaps.mean()),
            ),
        ],
    )
    write_robustness(path, record, _clip_table(scores, pairs, overlaps), _class_table(scores))
    return record


def _submission(run: Run, split: Split, truth: Solution) -> Path:
    """The submission of a run under its condition; predicted if it is not there."""
    path = run.submission_file(split)
    if path.is_file() and _is_of(run, split, truth, path):
        return path
    predict(run, split)
    if not _is_of(run, split, truth, path):
        raise AvsbError(
            f"`predict` of {run.method.name} has not written the predictions under the condition "
            f"'{run.condition}' to {path}; it must use the run's own loop, `run.loops.predict`."
        )
    return path


def _is_of(run: Run, split: Split, truth: Solution, path: Path) -> bool:
    """Whether a file is the submission of a run under its condition."""
    try:
        with read_submission(path) as submission:
            header = replace(submission.header, low_probability=())
            clips = None if run.condition == CLEAN else submission.shapes
            return header == submission_header(run, split, truth.fingerprint) and not truth.mismatches(
                submission, clips
            )
    except (MissingDataError, SubmissionError):
        return False


def _gains(clean: Scores, other: Scores) -> dict[str, GainEntry]:
    return {
        one.metric: GainEntry(value=one.difference, interval=one.interval)
        for one in compare(clean, other).differences
    }


def _clip_table(scores: Mapping[str, Scores], pairs: Pairs, overlaps: Floats) -> pd.DataFrame:
    """The per-clip table of all conditions."""
    parts = []
    for name, one in scores.items():
        table = one.per_clip.copy()
        clean = name == CLEAN
        table.insert(0, "condition", name)
        table.insert(2, "source", table["clip"] if clean else table["clip"].map(dict(pairs.sources)))
        table["overlap"] = np.full(len(table), np.nan) if clean else overlaps
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def _class_table(scores: Mapping[str, Scores]) -> pd.DataFrame | None:
    """The sums per clip and class of all conditions; ``None`` for binary tasks."""
    tables = [(name, one.per_clip_class) for name, one in scores.items()]
    parts = [table.assign(condition=name) for name, table in tables if table is not None]
    return pd.concat(parts, ignore_index=True) if parts else None
