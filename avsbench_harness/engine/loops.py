"""The loops that a method trains and predicts with unless it brings its own; calling them imports torch."""

from __future__ import annotations

from pathlib import Path

from avsbench_harness.engine.run import Run
from avsbench_harness.method import Loops, TrainingSummary
from avsbench_harness.tasks import Split


def _train(run: Run) -> TrainingSummary:
    from avsbench_harness.engine.train import train

    return train(run)


def _predict(run: Run, split: Split) -> Path:
    from avsbench_harness.engine.predict import predict

    return predict(run, split)


DEFAULT_LOOPS = Loops(_train, _predict)
