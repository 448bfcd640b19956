"""Weights that a run takes over: those that its training starts from, or those that it predicts with."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from avsbench_harness.engine.checkpoint import load_tensors
from avsbench_harness.errors import UsageError
from avsbench_harness.weights.strict import counted

#: Where a run's weights keep the network and the audio encoder that is trained with it.
MODEL, ENCODER = "model.", "encoder."


def read_weights(path: Path, *, published: bool) -> dict[str, Tensor]:
    """The entries of a safetensors file under the names of a run's system.

    Args:
        path: a run's weights, or a published checkpoint from the store.
        published: which of the two; the latter has the network's own names.
    """
    state = load_tensors(path)
    return {f"{MODEL}{name}": value for name, value in state.items()} if published else state


def outline(path: Path, *, published: bool) -> dict[str, Tensor]:
    """As :func:`read_weights`, but names and shapes only: tensors without memory."""
    with safe_open(path, "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    prefix = MODEL if published else ""
    return {f"{prefix}{name}": torch.empty(shape, device="meta") for name, shape in shapes.items()}


def take_over(system: nn.Module, state: Mapping[str, Tensor], skip: Sequence[str] = ()) -> None:
    """Copy entries into a system; nothing is copied unless everything fits.

    Args:
        system: a run's network, with its audio encoder if that is trained too.
        state: under the system's names. Without an audio encoder in it, the system keeps its own.
        skip: beginnings of the network's names; these entries stay as they are.

    Raises:
        UsageError: entries are missing, left over or of another shape; or ``skip`` names nothing.
    """
    prefixes = tuple(f"{MODEL}{name}" for name in skip)
    own = {name: value for name, value in system.state_dict().items() if not name.startswith(prefixes)}
    given = {name: value for name, value in state.items() if not name.startswith(prefixes)}
    _check_skip(skip, system.state_dict())
    encoders = [any(name.startswith(ENCODER) for name in names) for names in (own, given)]
    if encoders == [False, True]:
        raise UsageError(
            "These weights come with an audio encoder that was trained with them, and this run's is frozen; "
            "train it here too, as in --set audio.freeze=false with the same audio.encoder."
        )
    if encoders == [True, False]:
        own = {name: value for name, value in own.items() if not name.startswith(ENCODER)}
    shared = own.keys() & given.keys()
    faults = [
        counted("missing", [name.removeprefix(MODEL) for name in own if name not in given]),
        counted("unknown", [name.removeprefix(MODEL) for name in given if name not in own]),
        counted(
            "of another shape",
            [
                f"{name.removeprefix(MODEL)} {tuple(given[name].shape)} instead of {tuple(own[name].shape)}"
                for name in own
                if name in shared and given[name].shape != own[name].shape
            ],
        ),
    ]
    if any(faults):
        raise UsageError(
            f"These weights do not fit the run's network: {'; '.join(fault for fault in faults if fault)}."
        )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(given[name])


def _check_skip(skip: Sequence[str], names: Collection[str]) -> None:
    for beginning in skip:
        if not beginning or not any(name.startswith(f"{MODEL}{beginning}") for name in names):
            raise UsageError(
                f"The recipe's init_skip names '{beginning}', but no entry of the network begins so."
            )
