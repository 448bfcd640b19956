"""Fixtures of the command-line tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def finished(avsb, tiny: str, real_s4: Path, tmp_path: Path) -> Path:
    """A folder in which the tiny method ran on the small real set."""
    result = avsb("run", "--method", tiny, "--data", real_s4, "--out", tmp_path, "--device", "cpu")
    assert result.code == 0, result.err
    return tmp_path


@pytest.fixture
def quick_options(real_s4: Path, tmp_path: Path) -> list[object]:
    """Options of a run of one step on the small real dataset, below ``tmp_path``."""
    smoke = ["--data", real_s4, "--preset", "smoke", "--set", "iterations=1"]
    return [*smoke, "--out", tmp_path, "--device", "cpu"]
