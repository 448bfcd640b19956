"""Fixtures of the robustness tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from avsbench_harness.data.mini import write_mini
from avsbench_harness.tasks import TASKS


@pytest.fixture(scope="session")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny AVS-Mini of all tasks with six test clips."""
    root = tmp_path_factory.mktemp("composed") / "data"
    write_mini(root, list(TASKS.values()), (0, 0, 6), seed=5, jobs=1)
    return root
