"""Golden data of AVSegFormer."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def avsegformer_data(data: Path) -> Path:
    """Outputs of the published AVSegFormer; see the README there."""
    return data / "avsegformer"
