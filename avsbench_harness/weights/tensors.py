"""Safetensors files: written whole or not at all, and read within bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from avsbench_harness.errors import UsageError
from avsbench_harness.files import naming, sync

#: Longest header that is read, in bytes; a header of 1,000 entries has about 0.1 MB.
MAX_HEADER = 4 * 2**20
#: Longest name of an entry.
MAX_NAME = 300
#: Most axes of a tensor.
MAX_AXES = 32


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, whole or not at all; equal tensors give equal bytes.

    It has no metadata, because safetensors writes the entries of that in any order.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    owned: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().to("cpu").contiguous()
        if value.untyped_storage().data_ptr() in seen:
            value = value.clone()  # safetensors refuses two names for one memory
        seen.add(value.untyped_storage().data_ptr())
        owned[name] = value
    try:
        with naming(path):
            save_file(owned, temporary)
            sync(temporary)
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file to the CPU.

    Raises:
        UsageError: it is not a safetensors file, or damaged.
    """
    try:
        _check_header(path)
        tensors: dict[str, Tensor] = load_file(path)
        _check_entries({name: tensor.shape for name, tensor in tensors.items()})
    except (SafetensorError, OSError, KeyError, AttributeError) as error:  # the last two: unknown types
        raise _damaged(path, error) from error
    return tensors


def meta_state_dict(path: Path) -> dict[str, Tensor]:
    """Read names and shapes of a safetensors file: float32 tensors on the meta device.

    Raises:
        UsageError: it is not a safetensors file, or damaged.
    """
    try:
        _check_header(path)
        with safe_open(path, "pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        _check_entries(shapes)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def is_name(value: object) -> bool:
    """Whether a value can be the name of an entry: printable text of limited length."""
    return isinstance(value, str) and len(value) <= MAX_NAME and value.isprintable()


def _damaged(path: Path, error: Exception) -> UsageError:
    reason = "".join(letter if letter.isprintable() else "?" for letter in str(error)[:120])
    return UsageError(f"{path} is not a whole safetensors file ({reason}); make or fetch it again.")


def _check_entries(shapes: Mapping[str, Sequence[int]]) -> None:
    if not all(map(is_name, shapes)):
        raise SafetensorError("its names are too long or not printable")
    if any(len(shape) > MAX_AXES for shape in shapes.values()):
        raise SafetensorError(f"it has a tensor of more than {MAX_AXES} axes")


def _check_header(path: Path) -> None:
    """Refuse a file with a long header: every entry becomes a tensor, also one without elements."""
    with path.open("rb") as file:
        if int.from_bytes(file.read(8), "little") > MAX_HEADER:
            raise SafetensorError("its header is too long")
