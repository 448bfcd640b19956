"""The folder of a run: exclusive access, and the summary of a finished training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from avsbench_harness.engine.heartbeat import TRAINING, beating, take_claim
from avsbench_harness.engine.provenance import record_attempt
from avsbench_harness.engine.run import Run
from avsbench_harness.errors import Busy
from avsbench_harness.files import read_json, sweep_temporaries, write_json
from avsbench_harness.method import TrainingSummary


@contextmanager
def exclusive(run: Run) -> Iterator[None]:
    """Lock a run's folder, record the code that works on it, and write heartbeats there.

    Raises:
        Busy: another process holds the lock.
    """
    lock = take_claim(run.folder, TRAINING)
    if lock is None:
        raise Busy(f"Another process works on {run.id}; wait for it or stop it.")
    try:
        with beating(run.folder):
            sweep_temporaries(run.folder)
            record_attempt(run)
            yield
    finally:
        lock.release()


def write_spec(run: Run) -> None:
    """Write the run's ``spec.json``."""
    write_json(run.folder / "spec.json", run.spec.model_dump(mode="json"))


def write_summary(run: Run, summary: TrainingSummary) -> None:
    """Write the run's ``training.json``, which marks its training as finished."""
    write_json(run.folder / "training.json", summary.model_dump(mode="json"))


def read_summary(run: Run) -> TrainingSummary | None:
    """The summary of the run's finished training, ``None`` before that."""
    path = run.folder / "training.json"
    if not (path.is_file() and run.weights_file.is_file()):
        return None
    return TrainingSummary.parse(read_json(path), str(path))
