"""Weights and inputs drawn by name, for parity tests without stored weights.

A parity case stores the names and shapes of a state dict, a seed, and the outputs that a reference
implementation gave for the weights drawn here. Every tensor has a random stream of its own (numpy's
Philox keyed by the seed and the CRC-32 of the name), so a draw depends neither on the order of names nor on
the platform or the versions of numpy and torch.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def _normal(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """N(0, 1) in float32 from the stream that belongs to ``(seed, name)``."""
    stream = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(name.encode())]))
    return np.asarray(stream.standard_normal(shape, dtype=np.float32))


def seeded_tensor(seed: int, name: str, shape: Sequence[int]) -> Tensor:
    """One parameter or buffer, scaled as its name and shape ask for.

    Batch statistics are near (0, 1), norm weights near 1, biases near 0, and matrices and kernels have the
    variance 1 / fan-in, so that activations keep their size through a deep network.
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
    """A state dict, ``{name: tensor}``, for ``{name: shape}``."""
    return {name: seeded_tensor(seed, name, shape) for name, shape in shapes.items()}


def seeded_input(seed: int, name: str, shape: Sequence[int]) -> Tensor:
    """An input from N(0, 1), float32; ``name`` is ``images``, ``audio``, ``logmel``, ..."""
    return torch.from_numpy(_normal(seed, f"input:{name}", tuple(shape)))
