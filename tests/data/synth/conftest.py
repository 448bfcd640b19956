from __future__ import annotations

from pathlib import Path

import pytest

from avsbench_harness.data.synth import write_synthetic
from avsbench_harness.tasks import TASKS

#: Clips per split; four training clips of AVSS are one v1s, one v1m and two v2.
CLIPS = {"s4": (3, 1, 2), "ms3": (2, 1, 1), "avss": (4, 1, 1)}
SEED = 11


@pytest.fixture(scope="session")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny synthetic benchmark of each task, by the task's name."""
    folder = tmp_path_factory.mktemp("synthetic")
    for name, clips in CLIPS.items():
        write_synthetic(folder / name, TASKS[name], clips, SEED, jobs=1)
    return {name: folder / name for name in CLIPS}
