"""The interface of training logs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class StepEntry:
    """One training step.

    Attributes:
        step: number of the step, counted from 1.
        epoch: counted from 1.
        losses: ``loss`` and its terms.
        diagnostics: scalars that the model logs.
        lr: learning rate of the parameter groups whose ``lr_scale`` is 1.
        gradient_norm: L2 norm of all gradients before clipping; ``None`` if it is not finite.
        measured: values that differ between repetitions: ``time`` (seconds since 1970),
            ``clips_per_second``, ``memory_gib``.
    """

    step: int
    epoch: int
    losses: Mapping[str, float]
    diagnostics: Mapping[str, float]
    lr: float
    gradient_norm: float | None
    measured: Mapping[str, float]

    def scalars(self) -> dict[str, float]:
        """All numbers but the time, by the names that trackers show."""
        found = {f"train/{name}": value for name, value in {**self.diagnostics, **self.losses}.items()}
        found |= {"train/epoch": self.epoch, "train/lr": self.lr}
        if self.gradient_norm is not None:
            found["train/gradient_norm"] = self.gradient_norm
        found |= {f"measured/{name}": value for name, value in self.measured.items() if name != "time"}
        return {name: float(value) for name, value in found.items()}


@dataclass(frozen=True)
class ValidationEntry:
    """One validation.

    Attributes:
        step: number of training steps before it.
        epoch: counted from 1.
        metrics: of the validation split; ``None`` where a metric is not defined.
        measured: ``time``, see :class:`StepEntry`.
        images: clip id -> (H,W,3) uint8, its frames with the outlines of ground truth and prediction.
    """

    step: int
    epoch: int
    metrics: Mapping[str, float | None]
    measured: Mapping[str, float]
    images: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)

    def scalars(self) -> dict[str, float]:
        """The metrics that are defined, by the names that trackers show."""
        return {f"val/{name}": value for name, value in self.metrics.items() if value is not None}


class Tracker(ABC):
    """A log of one run's training.

    A run that resumes from a checkpoint repeats the steps after it. An implementation continues its log of
    the run and holds every step once.
    """

    #: Whether the tracker stores the images of validations.
    images = False

    @abstractmethod
    def log_step(self, entry: StepEntry) -> None:
        """Add a training step."""

    @abstractmethod
    def log_validation(self, entry: ValidationEntry) -> None:
        """Add a validation; its step was added before."""

    def flush(self) -> None:  # noqa: B027
        """Write what was added; called before the steps are saved in a checkpoint."""

    def close(self) -> None:  # noqa: B027
        """Write what was added, and release files and connections."""


def finite(value: float) -> float | None:
    """The value, ``None`` if it is not finite."""
    return value if math.isfinite(value) else None
