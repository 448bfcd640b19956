"""Weights and inputs drawn by name, for parity tests without stored weights.

A parity case stores the names and shapes of a state dict, a seed, and the outputs of a reference
implementation with the weights drawn here. Every tensor has its own random stream (numpy's Philox with the
seed and the CRC-32 of the name as key), so its values are independent of the order of names, the platform
and the versions of numpy and torch.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def _normal(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return float32 samples of N(0, 1) from the stream of ``(seed, name)``."""
    stream = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(name.encode())]))
    return np.asarray(stream.standard_normal(shape, dtype=np.float32))


def seeded_tensor(seed: int, name: str, shape: Sequence[int]) -> Tensor:
    """Return one parameter or buffer, scaled by its name and shape.

    Batch statistics are near (0, 1), norm weights near 1, biases near 0, and matrices and kernels have
    variance 1 / fan-in, so that activations keep their scale in a deep network.
    """
    size = tuple(shape)
    if name.endswith("num_batches_tracked"):
        return torch.zeros(size, dtype=torch.int64)
    noise = _normal(seed, name, size)
    if name.endswith("running_mean"):
        values = 0.1 * noise
    elif name.endswith("running_var"):
        values = 1.0 + 0.2 * np.abs(noise)
    elif len(size) > 1:
        values = noise / np.float32(np.sqrt(np.prod(size[1:])))
    elif name.endswith("weight"):
        values = 1.0 + 0.1 * noise
    else:
        values = 0.05 * noise
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def seeded_state(seed: int, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Return a state dict, ``{name: tensor}``, for ``{name: shape}``."""
    return {name: seeded_tensor(seed, name, shape) for name, shape in shapes.items()}


def seeded_input(seed: int, name: str, shape: Sequence[int]) -> Tensor:
    """Return an input from N(0, 1), float32; ``name`` is ``images``, ``audio``, ``logmel``, ..."""
    return torch.from_numpy(_normal(seed, f"input:{name}", tuple(shape)))
