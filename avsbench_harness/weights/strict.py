"""Published checkpoints: rename their entries and load them, all of them or none."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from avsbench_harness.errors import UsageError

#: Entries named in an error before it only counts the rest.
NAMED = 3

#: The attribute of a module that keeps what :func:`left_out` tells.
_LEFT_OUT = "_upstream_left_out"

#: The original PVTv2 numbers the parts of its stages from 1.
_PVT_STAGE = re.compile(r"(patch_embed|block|norm)([1-4])\.")


class MisfitError(UsageError):
    """A foreign state dict does not fit a module.

    Attributes:
        fit: share of the entries, of both sides together, that fit: 0 to below 1.
    """

    def __init__(self, message: str, fit: float) -> None:
        super().__init__(message)
        self.fit = fit


def load_renamed(
    module: nn.Module, state: Mapping[str, Tensor], rename: Callable[[str], str | None], *, what: str
) -> None:
    """Copy a foreign state dict into a module; nothing is copied unless everything fits.

    A foreign 1x1 convolution may be a linear layer here: trailing axes of length 1 are dropped. Counters of
    seen batches, which old checkpoints lack, may be missing.

    The names of the entries that ``rename`` leaves out are told by :func:`left_out` afterwards.

    Args:
        module: what to load into.
        state: foreign names to tensors.
        rename: foreign name to the module's name, ``None`` for entries to leave out. A name it does not know
            it may return as it is: it then counts as left over.
        what: the module in words, for the error.

    Raises:
        MisfitError: entries are missing, left over, of the wrong shape, or not tensors.
        UsageError: everything fits, but some values are not finite.
    """
    own = module.state_dict()
    found: dict[str, Tensor] = {}
    unused, left_over, misshapen = [], [], []
    for foreign, value in state.items():
        name = rename(foreign)
        if name is None:
            unused.append(foreign)
            continue
        if name not in own or name in found:
            left_over.append(foreign)
            continue
        fitted = _fit(value, own[name].shape)
        if fitted is None:
            misshapen.append(f"{foreign} {_describe(value)} instead of {tuple(own[name].shape)}")
        found[name] = own[name] if fitted is None else fitted
    missing = [name for name in own if name not in found and not name.endswith("num_batches_tracked")]
    faults = [
        counted("missing", missing),
        counted("unknown", left_over),
        counted("of the wrong shape", misshapen),
    ]
    if any(faults):
        fitting = len(found) - len(misshapen)
        raise MisfitError(
            f"This state dict does not fit {what}: {'; '.join(fault for fault in faults if fault)}. "
            "Check that task, backbone and variant are those of the checkpoint.",
            fit=fitting / (fitting + len(missing) + len(left_over) + len(misshapen)),
        )
    broken = [name for name, value in found.items() if not (value.is_meta or value.isfinite().all())]
    if broken:
        raise UsageError(
            f"This state dict fits {what}, but not all values are numbers: {counted('not finite', broken)}. "
            "The file is damaged, or its training diverged."
        )
    with torch.no_grad():
        for name, value in found.items():
            own[name].copy_(value)
    setattr(module, _LEFT_OUT, tuple(unused))


def left_out(module: nn.Module) -> tuple[str, ...]:
    """Names of the foreign entries that the last :func:`load_renamed` into a module knew and did not use."""
    names: tuple[str, ...] = getattr(module, _LEFT_OUT, ())
    return names


def pvt_v2_name(name: str) -> str:
    """A parameter of the original PVTv2 (Wang et al. 2022), named as in timm's ``features_only`` network."""
    name = name.replace("dwconv.dwconv.", "dwconv.")
    name = name.replace("patch_embed1.", "patch_embed.")  # timm keeps the first one outside the stages
    match = _PVT_STAGE.match(name)
    if match:
        part = {"patch_embed": "downsample", "block": "blocks", "norm": "norm"}[match[1]]
        name = f"stages_{int(match[2]) - 1}.{part}.{name[match.end() :]}"
    return name


def _fit(value: Tensor, shape: torch.Size) -> Tensor | None:
    """The tensor in the wanted shape, ``None`` where it does not fit."""
    if not isinstance(value, Tensor):
        return None
    while value.dim() > len(shape) and value.shape[-1] == 1:
        value = value.squeeze(-1)
    return value if value.shape == shape else None


def _describe(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"({type(value).__name__})"


def counted(fault: str, names: Sequence[str]) -> str:
    """Entries with a fault, for an error: ``4 missing (a, b, c and 1 more)``; nothing if there are none."""
    if not names:
        return ""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} {fault} ({', '.join(names[:NAMED])}{more})"
