"""Weights files that others made: read without unpickling objects, and named for what they look like."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from avsbench_harness.errors import UsageError
from avsbench_harness.files import sha256_file

# How torch.hub and timm put the first digits of a file's SHA-256 into its name: ``vggish-10086976.pth``.
_PUBLISHED_HASH = re.compile(r"-([0-9a-f]{8,64})\.")

# Wrappers that training scripts put around a state dict.
_WRAPPERS = ("state_dict", "model")

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
    """The state dict in a ``.safetensors`` file or a ``torch.save`` file, on the CPU.

    Wrappers (``{"state_dict": ...}``, ``{"model": ...}``) and the prefix ``module.`` of data-parallel
    training are taken off.

    Raises:
        UsageError: the file is missing, damaged, or holds anything but named tensors, or is not the
            one that the hash in its name stands for.
    """
    if not path.is_file():
        raise UsageError(f"There is no weights file {path}.")
    check_published_hash(path)
    value = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for wrapper in _WRAPPERS:
        if isinstance(value, Mapping) and isinstance(value.get(wrapper), Mapping):
            value = value[wrapper]
    if (
        not isinstance(value, Mapping)
        or not value
        or not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())
    ):
        raise UsageError(f"{path} does not hold a state dict (names and tensors); export one and try again.")
    state = dict(value)
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


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


def _read_safetensors(path: Path) -> object:
    import safetensors
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise UsageError(f"{path} is not a safetensors file ({error}); fetch it again.") from error


def _read_torch(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path} holds more than tensors, which is not read because it could run code; "
            "save its state dict alone, or as safetensors."
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise UsageError(
            f"{path} is not a weights file that torch reads ({str(error)[:120]}); fetch it again."
        ) from error


def looks_like(state: Mapping[str, Tensor]) -> str:
    """A noun phrase for what a state dict seems to be, from its names."""
    for pattern, description in _LOOKS:
        if any(re.match(pattern, name) for name in state):
            return description
    return f"an unknown network ({', '.join(list(state)[:3])}, ...)"
