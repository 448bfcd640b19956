"""Trackio runs in the local store; uploads only if the user names a Space in ``TRACKIO_SPACE_ID``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trackio
from trackio.sqlite_storage import SQLiteStorage

from avsbench_harness.tracking.tracker import StepEntry, Tracker, ValidationEntry

#: Name of the project.
PROJECT = "avsbench"


class Trackio(Tracker):
    """A run of Trackio with the run's id as its name, so that resuming continues it.

    The store keeps what was sent before an interruption; repeated steps that it has are not sent again.

    Args:
        run_id: the run's id.
        folder: of the run; not used, as the store is in ``TRACKIO_DIR``, or in the user's cache.
        step: number of steps that the run has done.
        config: the run's spec.
    """

    images = True

    def __init__(self, run_id: str, folder: Path, step: int, config: Mapping[str, Any]) -> None:
        stored = SQLiteStorage.get_logs(PROJECT, run_id)
        self._trained = max((row["step"] for row in stored if "train/loss" in row), default=0)
        self._validated = max(
            (row["step"] for row in stored if any(name.startswith("val/") for name in row)), default=0
        )
        self._run = trackio.init(
            project=PROJECT,
            name=run_id,
            config=dict(config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log_step(self, entry: StepEntry) -> None:
        """Add the scalars of a step."""
        if entry.step > self._trained:
            self._run.log(entry.scalars(), step=entry.step)

    def log_validation(self, entry: ValidationEntry) -> None:
        """Add the metrics and images of a validation."""
        if entry.step > self._validated:
            images = {
                f"val/{clip}": trackio.Image(image, caption=clip) for clip, image in entry.images.items()
            }
            self._run.log({**entry.scalars(), **images}, step=entry.step)

    def close(self) -> None:
        """Write what was added, and end the run."""
        self._run.finish()
