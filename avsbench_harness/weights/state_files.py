"""Weights files that others made: read without executing anything in them, and recognised by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from avsbench_harness.errors import UsageError
from avsbench_harness.files import sha256_file
from avsbench_harness.safe_pickle import PickledArray, RefusedError, StoredTensor, read_values
from avsbench_harness.weights.tensors import is_name, load_tensors
from avsbench_harness.weights.unwrap import unwrap

# The first digits of a file's SHA-256 in its name, as of torch.hub and timm: ``vggish-10086976.pth``.
_PUBLISHED_HASH = re.compile(r"-([0-9a-f]{8,64})\.")

# Largest size of all tensors in multiples of the file's size; tied weights share storage.
_COPIES = 4

# Other kinds of files, by their first bytes, and what to do about them.
_OTHER_FILES = (
    (rb"version https://git-lfs", "is a Git LFS pointer; fetch the file itself with `git lfs pull`"),
    (rb"(\xef\xbb\xbf)?\s*<(!doctype|!--|html|head|\?xml)", "is a web page; download the file itself"),
    (rb"\x1f\x8b", "is compressed with gzip; decompress it with gunzip"),
    (rb"\s*\{", "is JSON, such as the index of a model in parts; pass the weights file itself"),
)
_NOT_TORCH = (
    (rb'.{8}\{"', "is a safetensors file; rename it to .safetensors"),
    (rb"(?!\x80|PK\x03\x04|.{257}ustar).", "is not a weights file; fetch it again"),
)
_NOT_SAFETENSORS = ((rb"\x80[\x02-\x05]|PK\x03\x04", "is a file of torch.save; rename it to .pth"),)

# Other zip files, by the names of their members.
_OTHER_ZIPS = (
    (r"\.npy$", "is a NumPy archive (.npz); save its arrays as a state dict with torch.save"),
    (
        r"(?<!/data)\.(pth|pt|pkl|bin|ckpt|safetensors|th)$",
        "is a zip archive of weights; extract it and pass that file",
    ),
)

# The model of a state dict, by a name that it contains; the first that matches.
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


def read_state(path: Path, *, ema: bool = False) -> dict[str, Tensor]:
    """Read the state dict of a ``.safetensors``, ``torch.save`` or detectron2 ``.pkl`` file to the CPU.

    Wrappers (``{"state_dict": ...}``, ``{"model": ...}``) and the prefix ``module.`` of data-parallel
    training are removed; numpy arrays become tensors. Values beside a wrapped state dict are ignored. Memory
    stays within a small multiple of the file's size.

    Args:
        path: the file.
        ema: read the exponential moving average of the weights instead of the raw ones. Which of the two are
            read is logged if the file has an average.

    Raises:
        UsageError: the file is missing, damaged, holds anything but named tensors, does not have the hash
            in its name, or has no average that ``ema`` asks for.
    """
    if not path.is_file():
        raise UsageError(f"There is no weights file {path}.")
    check_published_hash(path)
    check_kind(path)
    if path.suffix == ".safetensors":
        state = _named_tensors(unwrap(load_tensors(path), path, ema=ema))
    else:
        state = _read_pickled(path, ema=ema)
    if not state:
        raise UsageError(f"{path} does not hold a state dict (names and tensors); export one and try again.")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


def check_kind(path: Path) -> None:
    """Refuse a file of another kind than its name says, or that holds no weights, with a ``UsageError``."""
    own = _NOT_SAFETENSORS if path.suffix == ".safetensors" else _NOT_TORCH
    with path.open("rb") as file:
        start = file.read(512)
    for pattern, kind in (*_OTHER_FILES, *own):
        if re.match(pattern, start, re.IGNORECASE | re.DOTALL):
            raise UsageError(f"{path} {kind}.")
    # The first member of a zip file follows its local header.
    if start.startswith(b"PK\x03\x04"):
        name = start[30 : 30 + int.from_bytes(start[26:28], "little")].decode("latin1")
        for suffix, kind in _OTHER_ZIPS:
            if re.search(suffix, name):
                raise UsageError(f"{path} {kind}.")


def _read_pickled(path: Path, *, ema: bool) -> dict[str, Tensor]:
    """The state dict of a pickle or ``torch.save`` file; empty if it is of anything else."""
    try:
        value = unwrap(read_values(path), path, ema=ema)
        if isinstance(value, Mapping):
            sizes = [
                entry.nbytes for entry in value.values() if isinstance(entry, PickledArray | StoredTensor)
            ]
            if sum(sizes) > _COPIES * path.stat().st_size:
                raise RefusedError("holds tensors that are larger than their data")
        return _named_tensors(value)
    except RefusedError as refusal:
        raise UsageError(
            f"{path} {refusal}; only named tensors are read. Fetch it again, or save its state dict alone."
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error}).") from error


def _named_tensors(value: object) -> dict[str, Tensor]:
    """Names and tensors of a mapping; empty if it is none, or holds anything else."""
    if not isinstance(value, Mapping) or not all(map(is_name, value)):
        return {}
    tensors = {name: _tensor(entry) for name, entry in value.items()}
    found = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    return found if len(found) == len(tensors) else {}


def _tensor(value: object) -> Tensor | None:
    """A tensor, or an array of numbers as one."""
    if isinstance(value, StoredTensor):
        dtype: torch.dtype = getattr(torch, value.storage.dtype)
        data = value.buffer()
        storage = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return storage.as_strided(value.size, value.steps(), value.offset)
    if isinstance(value, PickledArray):
        return torch.from_numpy(value.to_numpy())
    return value if isinstance(value, Tensor) else None


def check_published_hash(path: Path, sha256: str | None = None) -> None:
    """Compare a file with the SHA-256 digits in its name (``-<8 or more digits>.``), if it has any.

    Args:
        path: the file.
        sha256: its hash, if it is known already.

    Raises:
        UsageError: they differ: the file is damaged, or not the one it is named after.
    """
    published = _PUBLISHED_HASH.search(path.name)
    if published is None:
        return
    digits, actual = published[1], sha256 or sha256_file(path)
    if not actual.startswith(digits):
        raise UsageError(
            f"{path} is not the published file: its name contains SHA-256 {digits}..., but it has "
            f"{actual[: len(digits)]}.... Fetch it again, or rename it if these digits are no hash."
        )


def looks_like(state: Mapping[str, Tensor]) -> str:
    """A noun phrase for the model that a state dict seems to be of, from its names."""
    for pattern, description in _LOOKS:
        if any(re.match(pattern, name) for name in state):
            return description
    return f"an unknown network ({', '.join(name[:60] for name in list(state)[:3])}, ...)"
