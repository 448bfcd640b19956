"""Fixtures of all tests: a separate cache, the small real dataset, and the command line."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from avsbench_harness import cli
from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.engine.run import Run
from avsbench_harness.launch.request import Request, plan
from avsbench_harness.tasks import get_task

Planner = Callable[..., Run]

DATA = Path(__file__).parent / "fixtures"


#: Names of Chromium's program.
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that need CUDA or a browser where there is none."""
    import torch

    reasons = {}
    if not torch.cuda.is_available():
        reasons["gpu"] = "needs CUDA"
    if not any(map(shutil.which, CHROMIUM)):
        reasons["browser"] = "needs Chromium (Debian package chromium)"
    elif importlib.util.find_spec("playwright") is None:
        reasons["browser"] = "needs playwright (the extra browser)"
    for item in items:
        for marker, reason in reasons.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder of the test session."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _isolated_environment(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither read nor change the cache and data of the user; the default data set is synthetic."""
    monkeypatch.setenv("AVSB_CACHE_DIR", str(cache))
    monkeypatch.setenv("AVSB_DATA_DIR", "synthetic")
    monkeypatch.setenv("TRACKIO_DIR", str(cache / "trackio"))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with test data."""
    return DATA


@pytest.fixture(scope="session")
def real_s4() -> Path:
    """The small dataset of real silhouettes and recordings in the S4 layout."""
    return DATA / "real_s4"


@pytest.fixture(scope="session")
def tiny() -> str:
    """The folder of a method that trains in a second, for ``--method``."""
    return str(DATA / "tiny_method")


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def avsb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run the command line in this process: ``avsb("data", "check", ...)``."""

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["avsb", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return call


@pytest.fixture
def planned(tiny: str, real_s4: Path) -> Planner:
    """Plan a run of the tiny method on the small real dataset; keyword arguments change the request."""

    def make(out: Path, *assignments: str, seed: int = 0, data: Path = real_s4, task: str = "s4") -> Run:
        changes: Sequence[str] = assignments
        return plan(
            Request(method=tiny, backbone="r50", task=task, data=data, out=out, seed=seed, device="cpu",
                    workers=0, assignments=changes)
        )  # fmt: skip

    return make


@pytest.fixture(scope="session")
def untrained(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a run of the tiny method on a task with random weights, which needs no data."""
    out = tmp_path_factory.mktemp("untrained")

    def make(task: str) -> Path:
        from avsbench_harness.engine.run_folder import write_spec
        from avsbench_harness.engine.system import build_system
        from avsbench_harness.weights.tensors import save_tensors

        request = Request(method=tiny, backbone="r50", task=task, out=out, device="cpu", workers=0)
        empty = Dataset(get_task(task), out, out, out, False, ())
        run = plan(request, opened=lambda *_: (empty, "0" * 64))
        if not run.weights_file.is_file():
            state = build_system(run, pretrained=False).state_dict()
            write_spec(run)
            save_tensors(run.weights_file, state)
        return run.folder

    return make
