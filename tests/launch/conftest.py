from __future__ import annotations

from pathlib import Path

import pytest

from avsbench_harness.launch.grid import Grid

from .fake_slurm import slurm as slurm


@pytest.fixture
def grid(tiny: str, real_s4: Path):
    """A grid of short runs of the tiny method; keyword arguments change it."""

    def make(**changes) -> Grid:
        values = {
            "method": tiny,
            "backbone": "r50",
            "data": real_s4,
            "preset": "smoke",
            "set": {"iterations": 1},
        }
        return Grid.parse({**values, **changes}, "the test")

    return make
