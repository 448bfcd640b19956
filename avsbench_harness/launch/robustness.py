"""Finished runs under audio conditions: prediction, scores and the robustness record.

Where several processes work on a run, all of them call :func:`measure_robustness`.
"""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from avsbench_harness import distributed
from avsbench_harness.engine.predict import submission_header
from avsbench_harness.engine.predict_conditions import predict_conditions
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.solutions import solution_file
from avsbench_harness.errors import AvsbError, MissingDataError, SubmissionError, UsageError, unknown
from avsbench_harness.launch.execute import method_errors, predict
from avsbench_harness.launch.robustness_record import build_record
from avsbench_harness.method import Method
from avsbench_harness.results.robustness import (
    RobustnessRecord,
    read_robustness,
    robustness_file,
    write_robustness,
)
from avsbench_harness.results.robustness_faults import robustness_faults
from avsbench_harness.robustness.conditions import CLEAN, CONDITIONS, choose_conditions, unavailable
from avsbench_harness.run_names import match_prefix
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


def measure_robustness(run: Run, split: Split, names: Sequence[str] = ()) -> RobustnessRecord:
    """Predict and score a finished run under audio conditions, and write its robustness record.

    Submissions that exist are used. A valid record that has the conditions is returned as it is, and one that
    lacks some is extended: its values stay as they are.

    Args:
        run: the run.
        split: the split.
        names: names of conditions, or ``all``; none: the default ones. Those that the data do not allow are
            listed in the record with the reason.

    Raises:
        UsageError: the record exists and is not valid, or a condition is unknown.
        AvsbError: the method's own prediction ignores the condition.
    """
    path = robustness_file(run.out / "results", run.id, split)
    old: RobustnessRecord | None = None
    with distributed.main_process_first():
        if distributed.rank() == 0:
            old = _known(path)
    old = distributed.broadcast(old)
    known = [] if old is None else [entry.condition for entry in old.conditions]
    chosen = {*choose_conditions(names), *known}
    reasons = {name: unavailable(name, run.dataset, split) for name in CONDITIONS if name in chosen}
    measured = [name for name, reason in reasons.items() if reason is None]
    if old is not None and set(measured) <= set(known):
        logger.info(f"{run.id} is measured: {path}.")
        return old
    files = _submissions(run, split, measured)
    record: RobustnessRecord | None = None
    with distributed.main_process_first():
        if distributed.rank() == 0:
            missing = {name: reason for name, reason in reasons.items() if reason is not None}
            record, clips, classes = build_record(run, split, files, missing)
            write_robustness(path, record, clips, classes, extended=old)
    record = distributed.broadcast(record)
    assert record is not None  # rank 0 has sent it
    return record


def _known(path: Path) -> RobustnessRecord | None:
    """The record in a file, ``None`` if there is none."""
    if not path.is_file():
        return None
    faults = list(robustness_faults(path))
    if faults:
        raise UsageError(f"{path} is not valid ({faults[0]}); remove it to measure the run again.")
    return read_robustness(path)


def _submissions(run: Run, split: Split, names: Sequence[str]) -> dict[str, Path]:
    """The submissions of a run under some conditions; those that are not there are predicted."""
    runs = {name: replace(run, condition=name) for name in names}
    files = {name: one.submission_file(split) for name, one in runs.items()}

    def missing(names: Sequence[str]) -> list[str]:
        found: list[str] = []
        with distributed.main_process_first(), read_solution(solution_file(run.dataset, split)) as truth:
            if distributed.rank() == 0:  # for all processes, which may see the files at another time
                found = [name for name in names if not _is_of(runs[name], split, truth, files[name])]
        return distributed.broadcast(found)

    pending = missing(names)
    if type(run.method).predict is Method.predict:
        if pending:
            with method_errors(run):
                predict_conditions(run, split, pending)
        return files
    for name in pending:  # the method's own prediction
        predict(runs[name], split)
        if missing([name]):
            raise AvsbError(
                f"`predict` of {run.method.name} has not written the predictions under the condition "
                f"'{name}' to {files[name]}; it must use the run's own loop, `run.loops.predict`."
            )
    return files


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
