"""Golden data of the methods."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def avsegformer_data(data: Path) -> Path:
    """What the published AVSegFormer computed; see the README there."""
    return data / "avsegformer"
