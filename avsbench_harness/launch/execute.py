"""Execution of one run: training, prediction, scores, record."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from avsbench_harness import distributed
from avsbench_harness.engine.interrupt import stop_request
from avsbench_harness.engine.predict import evaluation_clips
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.skip_training import skip_training
from avsbench_harness.engine.solutions import solution_file
from avsbench_harness.errors import AvsbError, Busy, Interrupted, TooManyProcesses, one_line, os_error
from avsbench_harness.launch.preflight import check_run
from avsbench_harness.launch.records import Origin, record_failure, submission_record
from avsbench_harness.launch.run_scores import score_with_protocols
from avsbench_harness.method import TrainingSummary
from avsbench_harness.results.record import Record, read_record, write_record
from avsbench_harness.submission import read_solution, read_submission

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
        submission = run.method.predict(run, "test")
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
    """Train a run, or load the weights that its spec names; finished work is not repeated."""
    return run.method.train(run) if run.spec.weights is None else skip_training(run)


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
