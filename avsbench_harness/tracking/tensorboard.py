"""TensorBoard event files in a run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from avsbench_harness.tracking.tracker import StepEntry, Tracker, ValidationEntry


class TensorBoard(Tracker):
    """Scalars and images of a run for TensorBoard.

    Every attempt writes a file of its own; TensorBoard hides the steps of earlier files that are repeated.

    Args:
        run_id: the run's id.
        folder: of the run; the event files are in its ``tensorboard/``.
        step: number of steps that the run has done.
        config: the run's spec.
    """

    images = True

    def __init__(self, run_id: str, folder: Path, step: int, config: Mapping[str, Any]) -> None:
        logs = folder / "tensorboard"
        fresh = not logs.exists()
        self._writer = SummaryWriter(str(logs), purge_step=step + 1)
        if fresh:
            self._writer.add_text("spec", f"```\n{json.dumps(config, indent=2)}\n```", 0)

    def log_step(self, entry: StepEntry) -> None:
        """Add the scalars of a step."""
        self._scalars(entry.scalars(), entry)

    def log_validation(self, entry: ValidationEntry) -> None:
        """Add the metrics and images of a validation."""
        self._scalars(entry.scalars(), entry)
        for clip, image in entry.images.items():
            self._writer.add_image(
                f"val/{clip}", image, entry.step, walltime=entry.measured["time"], dataformats="HWC"
            )

    def flush(self) -> None:
        """Write the events to the file."""
        self._writer.flush()

    def close(self) -> None:
        """Write the events and close the file."""
        self._writer.close()

    def _scalars(self, values: Mapping[str, float], entry: StepEntry | ValidationEntry) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, entry.step, walltime=entry.measured["time"])
