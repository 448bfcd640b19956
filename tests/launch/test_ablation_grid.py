"""The grid of an ablation table."""

from __future__ import annotations

from pathlib import Path

import pytest

from avsbench_harness.errors import UsageError
from avsbench_harness.launch.ablation_grid import AblationRequest, ablation_grid


def test_invalid_requests_are_refused(tiny: str) -> None:
    with pytest.raises(UsageError, match="no row 'broad'"):
        ablation_grid(f"{tiny}/table1", AblationRequest(rows=["broad"]))
    with pytest.raises(UsageError, match="change 'options.width' themselves"):
        ablation_grid(f"{tiny}/table1", AblationRequest(overrides={"options.width": 3}))


def test_selected_rows_include_the_full_method(tiny: str, real_s4: Path) -> None:
    grid = ablation_grid(f"{tiny}/table1", AblationRequest(rows=["narrow"], data=real_s4, seeds=range(2)))
    assert [row.name for row in grid.rows] == ["narrow", "default"]
    assert grid.seeds == [0, 1]
