"""What all tests share: a cache of their own, and the small real data set."""

from __future__ import annotations

from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache folder for the whole test run."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_surroundings(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees or changes the user's cache or data."""
    monkeypatch.setenv("AVSB_CACHE_DIR", str(cache))
    monkeypatch.delenv("AVSB_DATA_DIR", raising=False)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with data files of tests."""
    return DATA


@pytest.fixture(scope="session")
def real_s4() -> Path:
    """Real silhouettes and real recordings in the S4 layout."""
    return DATA / "real_s4"


@pytest.fixture(scope="session")
def tiny() -> str:
    """The folder of a method that trains in a second, as the command line takes it."""
    return str(DATA / "tiny_method")
