"""Make an example submission from a solution, to try ``avsb score`` on.

    python tests/data/make_example.py submissions/example-solution.npz submissions/example.npz

The predictions are the ground truth moved by a few pixels, with a blob missing or added and soft edges: no
method made them, and their header says so.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy import ndimage

from avsbench_harness.submission import Header, Solution, SubmissionWriter, read_solution


def write_example(solution: Solution, path: Path, seed: int = 0) -> None:
    """Write the example submission that answers a solution."""
    rng = np.random.default_rng(seed)
    header = solution.header
    note = "An example, not a result: the ground truth moved, damaged and blurred."
    with SubmissionWriter(
        path, Header(header.task, header.split, solution.fingerprint, "example", note=note, size=header.size)
    ) as writer:
        for clip_id, masks in solution:
            moved = np.roll(masks, rng.integers(-6, 7, 2), axis=(1, 2))
            damaged = _damage(moved, rng)
            writer.add(clip_id, damaged if header.task == "avss" else _soften(damaged))


def _damage(masks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Set a disk around a random point to background, or in every third clip to the clip's object."""
    height, width = masks.shape[1:]
    y, x = rng.integers(0, height), rng.integers(0, width)
    rows, columns = np.ogrid[:height, :width]
    disk = (rows - y) ** 2 + (columns - x) ** 2 < (0.15 * height) ** 2
    value = masks.max() if rng.random() < 1 / 3 else 0
    return np.where(disk, value, masks)


def _soften(masks: np.ndarray) -> np.ndarray:
    """A sigmoid of the signed distance to the outline, rounded to few levels so that the file stays small."""
    inside = [
        ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(1 - mask) for mask in masks
    ]
    prob = 1 / (1 + np.exp(-np.stack(inside) / 3))
    prob = np.where(masks.any(axis=(1, 2))[:, None, None], prob, 0.02)
    return (np.round(prob * 32) / 32).astype(np.float32)


def main() -> None:
    """Parse and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("solution", type=Path)
    parser.add_argument("submission", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with read_solution(arguments.solution) as solution:
        write_example(solution, arguments.submission, arguments.seed)


if __name__ == "__main__":
    main()
