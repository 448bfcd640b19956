"""Weights files that others made: read without unpickling objects, and named for what they look like."""

from __future__ import annotations

import functools
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avsbench_harness.data.pickle_machine import RefusedError
from avsbench_harness.errors import UsageError
from avsbench_harness.files import sha256_file
from avsbench_harness.weights.array_pickles import PickledArray, read_array_pickle

# How torch.hub and timm put the first digits of a file's SHA-256 into its name: ``vggish-10086976.pth``.
_PUBLISHED_HASH = re.compile(r"-([0-9a-f]{8,64})\.")

# Wrappers that training scripts put around a state dict, and how deep they are followed.
_WRAPPERS = ("state_dict", "model")
_DEPTH = 4

# How files of torch.save begin: as a zip archive, or with the magic number of the format before it.
_TORCH_STARTS = (b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19")
# How pickles of protocol 2 and later begin.
_PICKLE_STARTS = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
# Types of numbers that a torch file may hold as numpy arrays beside its tensors.
_NUMBERS = ("bool", "int8", "int16", "int32", "int64", "uint8", "float16", "float32", "float64")

# What a state dict is, by a name that it must have; the first that matches.
_LOOKS: tuple[tuple[str, str], ...] = (
    (r"(.*\.)?pca_eigen_vectors$", "the PCA parameters of VGGish without its network"),
    (r"embeddings\.4\.weight$", "VGGish"),
    (r"(encoder_|visual_|module\.)?backbone\.", "a whole segmentation model, not its backbone"),
    (r"layer1\.0\.conv3\.weight$", "a ResNet of bottleneck blocks (50, 101, 152 layers or a relative)"),
    (r"layer1\.0\.conv2\.weight$", "a ResNet of basic blocks (18 or 34 layers)"),
    (r"(block1|stages\.0\.blocks)\.\d+\.attn\.sr\.weight$", "a Pyramid Vision Transformer"),
    (r"layers\.\d+\.blocks\.0\.attn\.relative_position_bias_table$", "a Swin Transformer"),
    (r"stages\.0\.blocks\.0\.(gamma|conv_dw\.weight)$", "a ConvNeXt"),
    (r"cls_token$", "a Vision Transformer"),
)


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a ``.safetensors`` file, a ``torch.save`` file or a detectron2 pickle, on the CPU.

    Wrappers (``{"state_dict": ...}``, ``{"model": ...}``) and the prefix ``module.`` of data-parallel
    training are taken off; numpy arrays become tensors. Whatever stands beside a wrapped state dict is left.

    Raises:
        UsageError: the file is missing, damaged, or holds anything but named tensors, or is not the
            one that the hash in its name stands for.
    """
    if not path.is_file():
        raise UsageError(f"There is no weights file {path}.")
    check_published_hash(path)
    try:
        state = _named_tensors(_unwrapped(_read(path)))
    except RefusedError as refusal:
        raise UsageError(
            f"{path} {refusal}; only pickles of named arrays are read, because others could run code."
        ) from None
    if not state:
        raise UsageError(f"{path} does not hold a state dict (names and tensors); export one and try again.")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


def _unwrapped(value: object) -> object:
    """What lies inside the wrappers of a training script."""
    for _ in range(_DEPTH):
        inner = [value[name] for name in _WRAPPERS if name in value] if isinstance(value, Mapping) else []
        if not inner or not isinstance(inner[0], Mapping):
            return value
        value = inner[0]
    return value


def _named_tensors(value: object) -> dict[str, Tensor]:
    """Names and tensors of a mapping; nothing if it is none, or holds anything else."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        return {}
    tensors = {name: _tensor(entry) for name, entry in value.items()}
    found = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    return found if len(found) == len(tensors) else {}


def _tensor(value: object) -> Tensor | None:
    """A tensor, or an array of numbers as one."""
    if isinstance(value, PickledArray):
        value = value.to_numpy()
    if isinstance(value, np.ndarray | np.number) and value.dtype.name in _NUMBERS:
        return torch.from_numpy(np.array(value))
    return value if isinstance(value, Tensor) else None


def check_published_hash(path: Path, sha256: str | None = None) -> None:
    """Compare a file with the SHA-256 digits in its name, where it has such (``-<8 or more digits>.``).

    Args:
        path: the file.
        sha256: its hash, where it is known already.

    Raises:
        UsageError: they differ: the file is damaged, or not the one it is named after.
    """
    published = _PUBLISHED_HASH.search(path.name)
    if published is None:
        return
    digits, actual = published[1], sha256 or sha256_file(path)
    if not actual.startswith(digits):
        raise UsageError(
            f"{path} is not the published file: its name says SHA-256 {digits}..., it has "
            f"{actual[: len(digits)]}.... Fetch it again, or rename it if these digits are no hash."
        )


def _read(path: Path) -> object:
    """The value in a weights file, by what the file begins with."""
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(_PICKLE_STARTS) and not start.startswith(_TORCH_STARTS):
        return read_array_pickle(path)
    return _read_torch(path)


def _read_safetensors(path: Path) -> object:
    import safetensors
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise UsageError(f"{path} is not a safetensors file ({error}); fetch it again.") from error


def _read_torch(path: Path) -> object:
    try:
        with torch.serialization.safe_globals(_numpy_globals()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+) (?:was not|whose)", str(error))
        what = f"more than tensors ({asked[1]})" if asked else "more than tensors"
        raise UsageError(
            f"{path} holds {what}, which is not read because it could run code; "
            "save its state dict alone, or as safetensors."
        ) from error
    except (
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
    ) as error:
        raise UsageError(
            f"{path} is not a weights file that torch reads ({str(error)[:120] or 'it ends too early'}); "
            "fetch it again."
        ) from error


@functools.cache
def _numpy_globals() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """What torch must answer to read plain numpy arrays and scalars; it makes arrays, and runs nothing."""
    array = np.zeros(1)
    rebuild, scalar = array.__reduce__()[0], array[0].__reduce__()[0]
    assert callable(rebuild)
    assert callable(scalar)
    named: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [np.ndarray, np.dtype]
    for core in ("core", "_core"):  # numpy 1 and 2, whichever wrote the file
        named.append((rebuild, f"numpy.{core}.multiarray._reconstruct"))
        named.append((scalar, f"numpy.{core}.multiarray.scalar"))
    return [*named, *(type(np.dtype(name)) for name in _NUMBERS)]


def looks_like(state: Mapping[str, Tensor]) -> str:
    """A noun phrase for what a state dict seems to be, from its names."""
    for pattern, description in _LOOKS:
        if any(re.match(pattern, name) for name in state):
            return description
    return f"an unknown network ({', '.join(list(state)[:3])}, ...)"
