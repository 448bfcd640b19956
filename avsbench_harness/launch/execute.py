"""Execution of one run: training, prediction, scores, record."""

from __future__ import annotations

import inspect
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import torch

from avsbench_harness import distributed
from avsbench_harness.engine.check_untrained import check_untrained
from avsbench_harness.engine.interrupt import stop_request
from avsbench_harness.engine.predict import evaluation_clips
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.skip_training import skip_training
from avsbench_harness.engine.solutions import solution_file
from avsbench_harness.errors import (
    PLUGIN_ERRORS,
    AvsbError,
    Busy,
    Interrupted,
    TooManyProcesses,
    describe,
    one_line,
    os_error,
)
from avsbench_harness.files import write_text
from avsbench_harness.launch.preflight import check_run
from avsbench_harness.launch.records import Origin, record_failure, submission_record
from avsbench_harness.launch.run_scores import score_with_protocols, sides
from avsbench_harness.method import Method, TrainingSummary
from avsbench_harness.results.record import Record, read_record, write_record
from avsbench_harness.robustness.conditions import CLEAN
from avsbench_harness.submission import read_solution, read_submission
from avsbench_harness.tasks import Split

logger = logging.getLogger(__name__)


def execute(run: Run) -> Record:
    """Train, predict, score and record a run; an interrupted run is resumed, a finished one not repeated.

    A run that fails leaves a record with the reason, and is tried again the next time. Where several
    processes work on a run, all of them call this function.
    """
    with distributed.main_process_first():
        finished = read_record(run.record_file) if run.record_file.is_file() else None
    if finished is not None and finished.status == "done":
        logger.info(f"{run.id} is finished: {run.record_file}.")
        return finished
    check_run(run, thorough=True)
    try:
        _prepare_test(run)
        summary = train_or_load(run)
        submission = predict(run, "test")
        record: Record | None = None
        with distributed.main_process_first():
            if distributed.rank() == 0:
                record = _score(run, summary, submission)
        record = distributed.broadcast(record)
        assert record is not None  # rank 0 has sent it
        return record
    except (Busy, Interrupted, TooManyProcesses, distributed.PeerFailedError):
        raise
    except Exception as error:
        if distributed.rank() == 0:
            known = os_error(error) if isinstance(error, OSError) else error
            reason = str(known) if isinstance(known, AvsbError) else f"{type(error).__name__}: {error}"
            with suppress(OSError):  # the record may not be writable either
                record_failure(run, one_line(reason))
        raise


def _prepare_test(run: Run) -> None:
    """Decode the inputs and pack the ground truth of the test split: damaged files fail before training."""
    with stop_request() as stop:
        with distributed.main_process_first():
            solution_file(run.dataset, "test")
            evaluation_clips(run, "test", stop)
        if stop:
            raise stop.error("What was decoded so far is kept; rerun the same command to resume.")


def train_or_load(run: Run) -> TrainingSummary:
    """Train a run, or load the weights that its spec names; finished work is not repeated.

    Raises:
        AvsbError: the method raised an exception, or did not return a summary of its training.
    """
    if run.spec.weights is not None:
        return skip_training(run)
    method = type(run.method)
    with method_errors(run):
        own = method.train is not Method.train and method.predict is Method.predict
        if own and not run.weights_file.is_file():
            check_untrained(run)
        summary: object = run.method.train(run)
    if not isinstance(summary, TrainingSummary):
        raise AvsbError(f"`train` of {run.method.name} must return a TrainingSummary, not {summary!r:.100}.")
    return summary


def predict(run: Run, split: Split) -> Path:
    """Write the submission of a split with the method's own or the default loop.

    If protocols of the recipe need other sizes, submissions of those sizes are written as well, unless the
    run has another audio condition than ``clean``.

    Raises:
        AvsbError: the method raised an exception, or did not return the path of a submission.
    """
    with method_errors(run):
        for side in sides(run.task, run.recipe.protocols) if run.condition == CLEAN else ():
            run.method.predict(replace(run, side=side), split)
        path: object = run.method.predict(run, split)
    if not isinstance(path, Path):
        raise AvsbError(
            f"`predict` of {run.method.name} must return the path of a submission, not {path!r:.100}."
        )
    return path


@contextmanager
def method_errors(run: Run) -> Iterator[None]:
    """Report an exception of the method's code with one sentence; its traceback is written to a file.

    Errors of the harness's own code are left alone.
    """
    try:
        yield
    except (AvsbError, OSError, torch.OutOfMemoryError):
        raise
    except PLUGIN_ERRORS as error:
        own = run.method.folder
        if not (own / "__init__.py").is_file():  # a module in no package
            own = Path(inspect.getfile(type(run.method))).resolve()
        frames = list(traceback.extract_tb(error.__traceback__))
        places = [frame for frame in frames if Path(frame.filename).resolve().is_relative_to(own)]
        if not places and not isinstance(error, SystemExit):
            raise
        where = places[-1] if places else frames[-1]
        file = run.folder / "traceback.txt"
        with suppress(OSError):
            write_text(file, "".join(traceback.format_exception(error)))
        raise AvsbError(
            f"The code of {run.method.name} failed at {Path(where.filename).name}, line {where.lineno}: "
            f"{describe(error)}; see {file}."
        ) from error


def _score(run: Run, summary: TrainingSummary, submission: Path) -> Record:
    """Score the submission of a run, and write the record."""
    with (
        read_submission(submission) as predicted,
        read_solution(solution_file(run.dataset, "test")) as truth,
    ):
        scores = score_with_protocols(predicted, truth, run.recipe.protocols)
        origin = Origin(run.spec, summary, run.weights_file)
        record = submission_record(submission, predicted.header, scores, origin)
    write_record(run.record_file, record, scores[0])
    return record
