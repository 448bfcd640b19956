"""Loading weights into a run's system: to start its training from, or to predict with."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from avsbench_harness.errors import AvsbError, UsageError
from avsbench_harness.files import sha256_file
from avsbench_harness.weights.sources import ENCODER, MODEL, Source
from avsbench_harness.weights.spec import WeightsSpec
from avsbench_harness.weights.strict import check_numbers, counted
from avsbench_harness.weights.tensors import load_tensors, meta_state_dict

_SKIP_HINT = " The recipe's init_skip leaves out entries by key prefix, for example class heads."


def read_weights(path: Path, *, published: bool) -> dict[str, Tensor]:
    """Read a safetensors file under the names of a run's system.

    Args:
        path: a run's weights, or published weights from the store.
        published: which of the two; published weights have the names of the network alone.
    """
    return _under_system_names(load_tensors(path), published=published)


def read_verified(path: Path, spec: WeightsSpec) -> dict[str, Tensor]:
    """Read the weights of a run's spec as :func:`read_weights` does, if they still have their hash.

    Raises:
        AvsbError: the file has changed.
    """
    wanted = path.stem if spec.published else spec.sha256  # the store names files by their hash
    if sha256_file(path) != wanted:
        raise AvsbError(f"{path} has changed since the run was planned, or is damaged; start the run again.")
    return read_weights(path, published=spec.published)


def check_fit(system: nn.Module, source: Source, asked: str, *, init: bool, skip: Sequence[str] = ()) -> None:
    """Refuse weights whose names or shapes are not those of a run's system.

    Args:
        system: the run's system, on the meta device.
        source: the weights, of which only names and shapes are read.
        asked: the user's name for them.
        init: whether training starts from them.
        skip: see :func:`load_weights_strict`.

    Raises:
        UsageError: they do not fit.
    """
    state = _under_system_names(meta_state_dict(source.path), published=source.spec.published)
    try:
        load_weights_strict(system, state, skip)
    except UsageError as error:
        hint = _SKIP_HINT if init and "of another shape" in str(error) else ""
        raise UsageError(f"{asked}: {error}{hint}") from None


def load_weights_strict(system: nn.Module, state: Mapping[str, Tensor], skip: Sequence[str] = ()) -> None:
    """Copy entries into a system; nothing is copied unless everything fits.

    Args:
        system: a run's network, with its audio encoder if that is trained too.
        state: entries under the system's names. If it has no audio encoder, the system keeps its own.
        skip: state-dict key prefixes of the network; these entries keep their values.

    Raises:
        UsageError: entries are missing, unknown or of another shape, a prefix in ``skip`` matches nothing, or
            values are not finite or not floating-point.
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
    faults = [
        counted("missing", [name.removeprefix(MODEL) for name in own if name not in given]),
        counted("unknown", [name.removeprefix(MODEL) for name in given if name not in own]),
        counted(
            "of another shape",
            [
                f"{name.removeprefix(MODEL)} {tuple(given[name].shape)} instead of {tuple(value.shape)}"
                for name, value in own.items()
                if name in given and given[name].shape != value.shape
            ],
        ),
    ]
    if any(faults):
        raise UsageError(
            f"These weights do not fit the run's network: {'; '.join(fault for fault in faults if fault)}."
        )
    check_numbers({name: given[name] for name in own}, own, "the run's network")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(given[name])


def _under_system_names(state: dict[str, Tensor], *, published: bool) -> dict[str, Tensor]:
    return {f"{MODEL}{name}": value for name, value in state.items()} if published else state


def _check_skip(skip: Sequence[str], names: Collection[str]) -> None:
    for prefix in skip:
        if not prefix or not any(name.startswith(f"{MODEL}{prefix}") for name in names):
            raise UsageError(
                f"The recipe's init_skip names '{prefix}', but no entry of the network has this prefix."
            )
