"""Golden data of TPAVI."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tpavi_data(data: Path) -> Path:
    """Outputs of the published TPAVI; see the README there."""
    return data / "tpavi"
