"""The state dict inside a training script's file: raw weights, or their exponential moving average (EMA)."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from avsbench_harness.errors import UsageError
from avsbench_harness.safe_pickle import PickledArray, StoredTensor
from avsbench_harness.weights.tensors import is_name

logger = logging.getLogger(__name__)

# Wrappers that training scripts put around a state dict, and the levels of them that are removed.
_WRAPPERS = ("state_dict", "model")
_DEPTH = 4

# Names of averages: ``state_dict_ema``, ``model_ema``, ``ema``; and wrappers inside of them.
_EMA = re.compile(r"(.*_)?ema(_.*)?$", re.IGNORECASE)
_EMA_WRAPPERS = (*_WRAPPERS, "module", "shadow")


def unwrap(value: object, path: Path, *, ema: bool) -> object:
    """Return the raw weights or their average, without the wrappers of a training script.

    If a file has an average, the choice is logged. A file with nothing else gives its average.

    Args:
        value: what the file holds.
        path: the file, for messages.
        ema: return the average.

    Raises:
        UsageError: ``ema`` is set, and there is no average.
    """
    averages: dict[str, object] = {}
    raw = _unwrapped(value, _WRAPPERS, averages)
    prefixed = _split(raw)
    if not averages and prefixed is not None:
        raw, averages = prefixed
    elif not averages:
        if ema:
            raise UsageError(f"{path} holds no EMA weights; leave out --ema to load its weights.")
        return raw
    name = next(iter(averages))
    average = _unwrapped(averages[name], _EMA_WRAPPERS)
    alone = raw is value and prefixed is None and not _has_tensors(raw)
    if ema or alone:
        beside = "" if alone else "; the raw weights beside them are not"
        logger.info(f"The EMA weights ('{name}') of {path} are loaded{beside}.")
        return average
    logger.info(
        f"{path} holds raw and EMA weights ('{name}'); the raw ones are loaded. --ema loads the others."
    )
    if raw is value and isinstance(raw, Mapping):
        return {key: entry for key, entry in raw.items() if key not in averages}
    return raw


def _has_tensors(value: object) -> bool:
    """Whether a mapping has tensors beside other values."""
    kinds = Tensor | StoredTensor | PickledArray
    return isinstance(value, Mapping) and any(isinstance(entry, kinds) for entry in value.values())


def _unwrapped(value: object, wrappers: Sequence[str], averages: dict[str, object] | None = None) -> object:
    """The value inside wrappers; averages beside them are added to ``averages``."""
    for _ in range(_DEPTH):
        if not isinstance(value, Mapping):
            return value
        if averages is not None:
            averages |= {
                name: inner
                for name, inner in value.items()
                if is_name(name) and _EMA.match(name) and _has_tensors(_unwrapped(inner, _EMA_WRAPPERS))
            }
        inner = [value[name] for name in wrappers if name in value]
        if not inner or not isinstance(inner[0], Mapping):
            return value
        value = inner[0]
    return value


def _split(value: object) -> tuple[object, dict[str, object]] | None:
    """The raw entries of a flat state dict, and those under a prefix (``model_ema.``), if it has both."""
    if not isinstance(value, Mapping) or not all(map(is_name, value)):
        return None
    prefix = next((name.split(".")[0] for name in value if _EMA.match(name.split(".")[0])), None)
    if prefix is None:
        return None
    raw = {name: entry for name, entry in value.items() if not name.startswith(f"{prefix}.")}
    average = {name: value[f"{prefix}.{name}"] for name in raw if f"{prefix}.{name}" in value}
    return (raw, {prefix: average}) if raw and len(average) == len(raw) else None
