"""Checkpoints: a run's whole training state on disk, written whole or not at all.

A checkpoint is a folder ``step-<n>`` of ``weights.safetensors``, ``optimizer.safetensors`` and
``state.json``. It is written under another name and renamed, so that whatever is called ``step-<n>`` is
complete; older ones go only after it stands. Random generators have no state to keep: every draw is
seeded by the run and the step.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from avsbench_harness.files import read_json, sync, write_json
from avsbench_harness.method import Validation
from avsbench_harness.schema import Schema
from avsbench_harness.weights.tensors import load_tensors, save_tensors


class Best(Schema):
    """The best validation so far, and the file with its weights."""

    step: int
    value: float
    file: str


class TrainState(Schema):
    """What training knows beside tensors.

    Attributes:
        step: optimiser steps done.
        best: the best validation so far.
        validations: all validations so far, in order.
        seconds: time spent in training, over all attempts.
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
        write_json(target / "state.json", _with_optimizer_layout(state, read_json(target / "state.json")))
        return target
    building = folder / f".{target.name}.tmp"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    tensors, layout = _flatten(optimizer.state_dict())
    save_tensors(building / "weights.safetensors", weights)
    save_tensors(building / "optimizer.safetensors", tensors)
    write_json(building / "state.json", {**state.model_dump(mode="json"), "optimizer": layout})
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
    values = read_json(newest / "state.json")
    layout = values.pop("optimizer")
    return Stored(
        folder=newest,
        state=TrainState.parse(values, str(newest / "state.json")),
        weights=load_tensors(newest / "weights.safetensors"),
        optimizer=_unflatten(load_tensors(newest / "optimizer.safetensors"), layout),
    )


def _complete(folder: Path) -> Iterator[Path]:
    return folder.glob("step-*")


def _with_optimizer_layout(state: TrainState, stored: dict[str, Any]) -> dict[str, Any]:
    return {**state.model_dump(mode="json"), "optimizer": stored["optimizer"]}


def _flatten(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state dict as named tensors and a JSON value without any."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                plain.setdefault(str(index), {})[name] = value
    layout = {"param_groups": state["param_groups"], "plain": plain}
    return tensors, json.loads(json.dumps(layout))


def _unflatten(tensors: Mapping[str, Tensor], layout: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    for index, values in layout["plain"].items():
        state.setdefault(int(index), {}).update(values)
    return {"state": state, "param_groups": layout["param_groups"]}
