"""Small submissions and solutions on disk."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avsbench_harness.submission import Header, SubmissionWriter, fingerprint_solution, write_solution

SIZE = (6, 8)
CLIPS = {"s4": {"-a_1": 5, "b.2": 5, "_c": 5}, "avss": {"-a_1": 5, "b.2": 10, "_c": 10}}


def masks_of(task: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    top = 71 if task == "avss" else 2
    return {clip: rng.integers(0, top, (t, *SIZE)).astype(np.uint8) for clip, t in CLIPS[task].items()}


@pytest.fixture
def masks() -> Callable[[str], dict[str, np.ndarray]]:
    return masks_of


@pytest.fixture
def pair(tmp_path: Path) -> Callable[[str], tuple[Path, Path]]:
    """Write a submission and a solution of a task, with clips in different orders; return their paths."""

    def make(task: str) -> tuple[Path, Path]:
        masks = masks_of(task)
        solution, submission = tmp_path / f"{task}-solution.npz", tmp_path / f"{task}.npz"
        fingerprint = write_solution(solution, task, "test", ((k, m, "v2") for k, m in masks.items()))
        with SubmissionWriter(submission, Header(task, "test", fingerprint, "test", size=SIZE)) as writer:
            for clip in sorted(masks, reverse=True):
                writer.add(clip, masks[clip] if task == "avss" else masks[clip].astype(np.float32))
        return submission, solution

    return make


@pytest.fixture
def savez(tmp_path: Path) -> Callable[..., Path]:
    """Write a submission with numpy alone, with optional changes of the header and the clips."""

    def write(
        task: str = "s4", header: dict[str, Any] | None = None, clips: dict[str, Any] | None = None
    ) -> Path:
        masks = masks_of(task)
        fingerprint = fingerprint_solution(task, "test", ((k, m, "v2") for k, m in masks.items()))
        value: dict[str, Any] = {
            "format": 1,
            "kind": "submission",
            "task": task,
            "split": "test",
            "solution": fingerprint,
            "encoding": "labels" if task == "avss" else "threshold-codes",
            "method": "numpy",
            "size": list(SIZE),
            **(header or {}),
        }
        codes = masks if task == "avss" else {clip: mask * np.uint8(255) for clip, mask in masks.items()}
        arrays: dict[str, Any] = {**codes, **(clips or {})}
        arrays = {name: array for name, array in arrays.items() if array is not None}
        encoded = np.frombuffer(json.dumps(value).encode(), np.uint8)
        path = tmp_path / "numpy.npz"
        np.savez_compressed(path, **{"header": encoded, **arrays})
        return path

    return write


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Apply one to four random changes: bits, bytes, truncation, sizes and offsets, header values."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        kind = rng.randrange(7)
        at = rng.randrange(len(changed) + 1) if changed else 0
        count = rng.choice([1, 2, 4, 16, 200])
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at : at + count] = rng.randbytes(count)
        elif kind == 2:
            del changed[at : at + count]
        elif kind == 3:
            changed[at:at] = changed[at : at + count]
        elif kind == 4:
            del changed[at:]
        elif kind == 5 and len(changed) > 4:  # a size or offset in a zip record
            marks = [i for i in range(len(changed) - 4) if changed[i : i + 2] == b"PK"]
            field = rng.choice(marks or [0]) + rng.randrange(4, 46)
            value = rng.choice([0, 1, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, rng.getrandbits(32)])
            changed[field : field + 4] = struct.pack("<L", value)
        elif kind == 6:
            changed = changed.replace(
                rng.choice([b"u1", b"(5, ", b"False", b'"s4"', b"[6, 8]", b".npy"]),
                rng.choice([b"O", b"(9**9**9, ", b"True", b'"ms3"', b"[1024, 1024]", b"../x", b"(-5, "]),
                1,
            )
    return bytes(changed)


@pytest.fixture
def mutate() -> Callable[[bytes, random.Random], bytes]:
    return mutated
