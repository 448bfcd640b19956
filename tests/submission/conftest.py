"""Small submissions and solutions on disk."""

from __future__ import annotations

import json
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
