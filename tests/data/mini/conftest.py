from __future__ import annotations

from pathlib import Path

import pytest

from avsbench_harness.data.mini import write_mini
from avsbench_harness.tasks import TASKS

#: Clips per split; four training clips of AVSS are one v1s, one v1m and two v2.
CLIPS = (4, 2, 2)


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny AVS-Mini with all tasks."""
    root = tmp_path_factory.mktemp("mini") / "data"
    write_mini(root, list(TASKS.values()), CLIPS, seed=3, jobs=1)
    return root
