"""Weights & Biases runs; offline unless the user asks for uploads with ``WANDB_MODE=online``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from avsbench_harness.tracking.tracker import StepEntry, Tracker, ValidationEntry

#: Name of the project, unless ``WANDB_PROJECT`` names another.
PROJECT = "avsbench"


class WeightsAndBiases(Tracker):
    """A run of Weights & Biases whose id is that of the run, so that resuming continues it.

    Weights & Biases ignores steps that it has already.

    Args:
        run_id: the run's id.
        folder: of the run; offline files are in its ``wandb/``, which ``wandb sync`` uploads.
        step: number of steps that the run has done.
        config: the run's spec.
    """

    images = True

    def __init__(self, run_id: str, folder: Path, step: int, config: Mapping[str, Any]) -> None:
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run_id,
            name=run_id,
            dir=str(folder),
            config=dict(config),
            resume="allow",
            mode=os.environ.get("WANDB_MODE", "offline"),
        )

    def log_step(self, entry: StepEntry) -> None:
        """Add the scalars of a step."""
        self._run.log(entry.scalars(), step=entry.step)

    def log_validation(self, entry: ValidationEntry) -> None:
        """Add the metrics and images of a validation to its step."""
        images = {f"val/{clip}": wandb.Image(image, caption=clip) for clip, image in entry.images.items()}
        self._run.log({**entry.scalars(), **images}, step=entry.step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()
