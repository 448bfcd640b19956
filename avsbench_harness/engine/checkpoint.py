"""Checkpoints: the resumable training state of a run on disk, written whole or not at all.

A checkpoint is a folder ``step-<n>`` with ``weights.safetensors``, ``optimizer.pt`` and ``state.json``. It is
written under a temporary name and renamed, so that a folder called ``step-<n>`` is complete; older ones are
removed afterwards. Random generators are not saved: every draw is seeded by the run and the step.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from avsbench_harness.errors import AvsbError, one_line
from avsbench_harness.files import naming, read_json, sync, write_json
from avsbench_harness.method import Validation
from avsbench_harness.schema import Schema
from avsbench_harness.weights.tensors import load_tensors, save_tensors


class Best(Schema):
    """The best validation so far, and the file with its weights."""

    step: int
    value: float
    file: str


class TrainState(Schema):
    """The training state beside tensors.

    Attributes:
        step: number of optimiser steps done.
        best: the best validation so far.
        validations: all validations so far, in order.
        seconds: time spent in training steps, over all attempts.
        scaler: state of the fp16 gradient scaler, empty without one.
    """

    step: int = 0
    best: Best | None = None
    validations: list[Validation] = Field([])
    seconds: float = 0.0
    scaler: dict[str, int | float] = Field({})

    @property
    def validated(self) -> int:
        """The step of the last validation, 0 before the first."""
        return self.validations[-1].step if self.validations else 0


@dataclass
class Stored:
    """A checkpoint read back."""

    folder: Path
    state: TrainState
    weights: dict[str, Tensor]
    optimizer: dict[str, Any] = field(repr=False)


def save_checkpoint(
    folder: Path, state: TrainState, weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> Path:
    """Write the checkpoint of ``state.step`` under ``folder`` and remove older ones."""
    target = folder / f"step-{state.step:08d}"
    if target.exists():  # the same step with a newer state, for instance after its validation
        write_json(target / "state.json", state.model_dump(mode="json"))
        return target
    building = folder / f".{target.name}.tmp"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    save_tensors(building / "weights.safetensors", weights)
    with naming(building / "optimizer.pt"), (building / "optimizer.pt").open("wb") as file:
        torch.save(optimizer.state_dict(), file)
    sync(building / "optimizer.pt")
    write_json(building / "state.json", state.model_dump(mode="json"))
    sync(building)
    building.rename(target)
    sync(folder)
    for old in _complete(folder):
        if old != target:
            shutil.rmtree(old)
    return target


def load_checkpoint(folder: Path) -> Stored | None:
    """The newest complete checkpoint under ``folder``, or ``None``; leftovers of a kill are removed."""
    if not folder.is_dir():
        return None
    for leftover in folder.glob(".step-*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)  # another process of the run may be at it
    complete = sorted(_complete(folder))
    if not complete:
        return None
    newest = complete[-1]
    return Stored(
        folder=newest,
        state=TrainState.parse(read_json(newest / "state.json"), str(newest / "state.json")),
        weights=load_tensors(newest / "weights.safetensors"),
        optimizer=_load_optimizer(newest / "optimizer.pt"),
    )


def _load_optimizer(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch documents no type for a damaged file
        raise AvsbError(f"{path} cannot be read ({one_line(error)}); remove {path.parent}.") from error
    return state


def _complete(folder: Path) -> Iterator[Path]:
    return folder.glob("step-*")
