from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from avsbench_harness.engine.run import Run
from avsbench_harness.launch.plan import Request, plan

Planner = Callable[..., Run]


@pytest.fixture
def planned(tiny: str, real_s4: Path) -> Planner:
    """A run of the tiny method on the small real set; keyword arguments change the request."""

    def make(out: Path, *assignments: str, seed: int = 0, data: Path = real_s4, task: str = "s4") -> Run:
        changes: Sequence[str] = assignments
        return plan(
            Request(method=tiny, backbone="r50", task=task, data=data, out=out, seed=seed, device="cpu",
                    workers=0, assignments=changes)
        )  # fmt: skip

    return make
