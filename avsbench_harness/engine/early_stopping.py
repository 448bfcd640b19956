"""Early stopping: a training ends when validations do not improve."""

from __future__ import annotations

from collections.abc import Sequence

from avsbench_harness.method import Validation


def validations_since_best(validations: Sequence[Validation], metric: str) -> int:
    """The number of validations since the first one with the largest value of a metric.

    A validation without a value of the metric is no improvement.

    Args:
        validations: in order.
        metric: its name; larger values are better.
    """
    best, since = None, 0
    for validation in validations:
        value = validation.metrics.get(metric)
        if value is not None and (best is None or value > best):
            best, since = value, 0
        else:
            since += 1
    return since
