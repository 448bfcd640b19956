"""The example code in ``submissions/README.md`` writes valid submissions."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from avsbench_harness.submission import EDGES, check_submission, encode, read_solution, write_solution

README = Path(__file__).parents[2] / "submissions" / "README.md"


def test_example_code(tmp_path):
    program, binary = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in program.splitlines() if line]) <= 20
    namespace: dict = {}
    exec(program, namespace)
    p = np.random.default_rng(0).random((3, 5, 224, 224)).astype(np.float32)
    edges = np.concatenate([EDGES, np.nextafter(EDGES, np.float32(0)), [0.5]])
    p[0].ravel()[: edges.size] = edges
    assert np.array_equal(namespace["encode"](p), encode(p))
    ids = ["-a", "b_1.5", "c"]
    masks = (p > 0.7).astype(np.uint8)
    fingerprint = write_solution(tmp_path / "solution.npz", "s4", "test", zip(ids, masks, ids, strict=True))
    namespace["write"](
        tmp_path / "mine.npz", dict(zip(ids, p, strict=True)), "s4", "test", fingerprint, "example"
    )
    with read_solution(tmp_path / "solution.npz") as solution:
        assert check_submission(tmp_path / "mine.npz", solution) == []
    namespace["masks"] = dict(zip(ids, masks, strict=True))
    exec(binary, namespace)
    for clip, mask in namespace["masks"].items():
        assert np.array_equal(namespace["clips"][clip], encode(mask.astype(np.float32)))
