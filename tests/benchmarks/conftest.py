"""Collect benchmarks only if they are named on the command line: ``pytest tests/benchmarks``."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return None if any("benchmarks" in argument for argument in config.args) else True
