"""Published weights: rename their entries and load them, all of them or none."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from avsbench_harness.errors import UsageError

#: Entries that an error names before it only counts the rest.
NAMED = 3

#: The attribute of a module that :func:`unused_entries` reads.
_UNUSED = "_upstream_unused_entries"

#: The original PVTv2 numbers the parts of its stages from 1.
_PVT_STAGE = re.compile(r"(patch_embed|block|norm)([1-4])\.")

#: Pattern and replacement, as for ``re.sub``; entries that match a pattern without replacement are unused.
Rule: TypeAlias = tuple[str, str | Callable[[re.Match[str]], str] | None]


class RenameRules:
    """Ordered rules that rename the entries of a published state dict.

    Called with a published name, it returns the module's name, or ``None`` for an unused entry. The prefix
    ``module.`` of data-parallel training is removed first. The rules then apply one after the other, each to
    the result of those before; the first match of a rule without replacement ends it. A name that no rule
    matches is returned unchanged.

    Args:
        rules: see :data:`Rule`. Patterns are searched for, so anchor them with ``^`` if needed.
    """

    def __init__(self, *rules: Rule) -> None:
        self._rules = [(re.compile(pattern), replacement) for pattern, replacement in rules]

    def __call__(self, name: str) -> str | None:
        """The module's name of a published entry, ``None`` for an unused one."""
        name = name.removeprefix("module.")
        for pattern, replacement in self._rules:
            if replacement is not None:
                name = pattern.sub(replacement, name)
            elif pattern.search(name):
                return None
        return name


class MisfitError(UsageError):
    """A published state dict does not fit a module.

    Attributes:
        fit: share of the entries, of both sides together, that fit: 0 to below 1.
    """

    def __init__(self, message: str, fit: float) -> None:
        super().__init__(message)
        self.fit = fit


def load_renamed(
    module: nn.Module, state: Mapping[str, Tensor], rename: Callable[[str], str | None], *, what: str
) -> None:
    """Copy a published state dict into a module; nothing is copied unless everything fits.

    A published 1x1 convolution may be a linear layer here: trailing axes of length 1 are dropped. Counters of
    batches (``num_batches_tracked``), which old files lack, may be missing. :func:`unused_entries` returns
    the names that ``rename`` left out.

    Args:
        module: the module.
        state: published names and tensors.
        rename: returns the module's name of a published one, ``None`` for unused entries; usually
            :class:`RenameRules`. Names that the module does not have are reported as unknown.
        what: the module in words, for the error.

    Raises:
        MisfitError: entries are missing, unknown, of the wrong shape, or not tensors.
        UsageError: everything fits, but some values are not finite, or integers where floats belong.
    """
    own = module.state_dict()
    found: dict[str, Tensor] = {}
    unused, unknown, misshapen = [], [], []
    for published, value in state.items():
        name = rename(published)
        if name is None:
            unused.append(published)
            continue
        if name not in own or name in found:
            unknown.append(published)
            continue
        fitted = _fit(value, own[name].shape)
        if fitted is None:
            misshapen.append(f"{published} {_describe(value)} instead of {tuple(own[name].shape)}")
        found[name] = own[name] if fitted is None else fitted
    missing = [name for name in own if name not in found and not name.endswith("num_batches_tracked")]
    faults = [
        counted("missing", missing),
        counted("unknown", unknown),
        counted("of the wrong shape", misshapen),
    ]
    if any(faults):
        fitting = len(found) - len(misshapen)
        raise MisfitError(
            f"This state dict does not fit {what}: {'; '.join(fault for fault in faults if fault)}. "
            "Check that task, backbone and variant are those of the weights.",
            fit=fitting / (fitting + len(missing) + len(unknown) + len(misshapen)),
        )
    check_numbers(found, own, what)
    with torch.no_grad():
        for name, value in found.items():
            own[name].copy_(value)
    setattr(module, _UNUSED, tuple(unused))


def check_numbers(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str) -> None:
    """Refuse values that cannot be a network's: not finite, or not floating-point where these belong.

    Args:
        state: entries under the network's names; those on the meta device have no values.
        wanted: the network's own entries.
        what: the network in words, for the error.

    Raises:
        UsageError: an entry is refused; values too large for the network's type are not finite either.
    """
    common = [(name, value, wanted[name].dtype) for name, value in state.items() if name in wanted]
    typed = [
        f"{name} {str(value.dtype).removeprefix('torch.')}"
        for name, value, dtype in common
        if dtype.is_floating_point and not (value.is_meta or _is_float(value))
    ]
    broken = [
        name
        for name, value, dtype in common
        if not (typed or value.is_meta)
        and not (value.to(dtype) if dtype.is_floating_point else value).isfinite().all()
    ]
    if typed:
        raise UsageError(
            f"This state dict fits {what}, but has the wrong type: {counted('not floating-point', typed)}. "
            "Quantised weights are not read; fetch the original ones."
        )
    if broken:
        raise UsageError(
            f"This state dict fits {what}, but not all values are numbers: {counted('not finite', broken)}. "
            "The file is damaged, or its training diverged."
        )


def _is_float(value: Tensor) -> bool:
    """Whether a tensor has floating-point numbers of at least 16 bits; smaller ones are quantised."""
    return value.is_floating_point() and value.element_size() > 1


def unused_entries(module: object) -> tuple[str, ...]:
    """Names of the published entries that the last :func:`load_renamed` into a module did not use."""
    names: tuple[str, ...] = getattr(module, _UNUSED, ())
    return names


def pvt_v2_name(name: str) -> str:
    """Return timm's (``features_only``) name of an entry of the original PVTv2 (Wang et al. 2022)."""
    name = name.replace("dwconv.dwconv.", "dwconv.")
    name = name.replace("patch_embed1.", "patch_embed.")  # in timm the first one is outside of the stages
    match = _PVT_STAGE.match(name)
    if match:
        part = {"patch_embed": "downsample", "block": "blocks", "norm": "norm"}[match[1]]
        name = f"stages_{int(match[2]) - 1}.{part}.{name[match.end() :]}"
    return name


def _fit(value: Tensor, shape: torch.Size) -> Tensor | None:
    """The tensor in the wanted shape, ``None`` if it does not fit."""
    if not isinstance(value, Tensor):
        return None
    while value.dim() > len(shape) and value.shape[-1] == 1:
        value = value.squeeze(-1)
    return value if value.shape == shape else None


def _describe(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"({type(value).__name__})"


def counted(fault: str, names: Sequence[str]) -> str:
    """Describe entries with a fault: ``4 missing (a, b, c and 1 more)``; empty if there are none."""
    if not names:
        return ""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} {fault} ({', '.join(names[:NAMED])}{more})"
