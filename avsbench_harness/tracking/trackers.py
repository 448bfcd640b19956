"""The trackers of a run: the JSON log, and those that the user asks for."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from avsbench_harness.errors import UsageError, describe, unknown
from avsbench_harness.tracking.json_log import JsonLog
from avsbench_harness.tracking.tracker import StepEntry, Tracker, ValidationEntry

logger = logging.getLogger(__name__)

#: Trackers by name: module and class. Each needs the package of its name, which is also its extra.
TRACKERS = {
    "tensorboard": ("avsbench_harness.tracking.tensorboard", "TensorBoard"),
    "wandb": ("avsbench_harness.tracking.wandb", "WeightsAndBiases"),
    "trackio": ("avsbench_harness.tracking.trackio", "Trackio"),
}


def check_trackers(names: Sequence[str]) -> tuple[str, ...]:
    """The distinct names of trackers, in order.

    Raises:
        UsageError: a tracker is unknown, or its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise unknown("tracker", name, TRACKERS)
        if find_spec(name) is None:
            raise UsageError(
                f"--log {name} needs the package {name}; install it with "
                f"`pip install 'avsbench-harness[{name}]'`."
            )
    return tuple(dict.fromkeys(names))


class Trackers(Tracker):
    """The JSON log and other trackers as one.

    An error of another tracker is logged and ends that tracker, not the training.

    Args:
        log: the JSON log.
        others: the other trackers by name.
    """

    def __init__(self, log: Tracker, others: Mapping[str, Tracker]) -> None:
        self._log = log
        self._others = dict(others)

    @property
    def images(self) -> bool:  # type: ignore[override]
        """Whether a tracker stores the images of validations."""
        return any(tracker.images for tracker in self._others.values())

    def log_step(self, entry: StepEntry) -> None:
        """Add a training step to all trackers."""
        self._log.log_step(entry)
        self._each(lambda tracker: tracker.log_step(entry))

    def log_validation(self, entry: ValidationEntry) -> None:
        """Add a validation to all trackers."""
        self._log.log_validation(entry)
        self._each(lambda tracker: tracker.log_validation(entry))

    def flush(self) -> None:
        """Write what was added."""
        self._log.flush()
        self._each(lambda tracker: tracker.flush())

    def close(self) -> None:
        """Close all trackers."""
        self._log.close()
        self._each(lambda tracker: tracker.close())

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._others.items()):
            try:
                with redirect_stdout(sys.stderr):  # stdout is the command's own output
                    call(tracker)
            except Exception as error:
                logger.warning(f"{name} failed and gets no more entries: {describe(error)}")
                del self._others[name]


def open_trackers(
    names: Sequence[str], run_id: str, folder: Path, step: int, config: Mapping[str, Any]
) -> Trackers:
    """Open the JSON log and the named trackers of a run, which continue what they have of it.

    Args:
        names: of :data:`TRACKERS`.
        run_id: the run's id.
        folder: of the run.
        step: number of steps that the run has done.
        config: the run's spec as JSON values, which some trackers show.

    Raises:
        UsageError: a tracker is unknown, or its package is not installed.
    """
    others: dict[str, Tracker] = {}
    for name in check_trackers(names):
        module, kind = TRACKERS[name]
        try:
            with redirect_stdout(sys.stderr):
                others[name] = getattr(importlib.import_module(module), kind)(run_id, folder, step, config)
        except Exception as error:
            logger.warning(f"{name} cannot be opened, the training goes on without it: {describe(error)}")
    return Trackers(JsonLog(folder / "log.jsonl", step), others)
