"""Golden data of COMBO."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def folder(data: Path) -> Path:
    """Outputs of the published COMBO; see the README there."""
    return data / "combo"
