"""Runs whose data are incomplete or whose output cannot be written are refused before they start."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from avsbench_harness.data.maskige import make_maskiges, maskige_files
from avsbench_harness.engine.run import Run
from avsbench_harness.errors import MissingDataError
from avsbench_harness.launch import preflight
from avsbench_harness.launch.preflight import check_output, check_run
from avsbench_harness.launch.request import Request, plan
from avsbench_harness.tasks import SPLITS


@pytest.fixture
def copy(real_s4: Path, tmp_path: Path) -> Path:
    """A data root of its own."""
    shutil.copytree(real_s4, tmp_path / "data")
    return tmp_path / "data"


def combo(data: Path, *assignments: str) -> Run:
    request = Request("combo", "r50", data=data, pretrained=False, assignments=assignments, device="cpu")
    return plan(request, check=False)


@pytest.mark.parametrize("kind", ["visual_frames", "gt_masks", "audio_wav"])
@pytest.mark.parametrize("split", SPLITS)
def test_a_missing_file_of_any_split_is_found_before_training(
    avsb, tiny: str, copy: Path, tmp_path: Path, kind: str, split: str
) -> None:
    gone = next(path for path in sorted(copy.glob(f"**/{kind}/{split}/**/*")) if path.is_file())
    gone.unlink()
    given = ["--method", tiny, "--data", copy, "--out", tmp_path / "out", "--device", "cpu"]
    for command in (["run", "--dry-run"], ["run"], *([] if split == "test" else [["train"]])):
        result = avsb(*command, *given)
        assert result.code == 4
        assert str(gone.with_suffix("")) in result.err
        assert not (tmp_path / "out").exists()


def test_data_are_looked_through_once(planned, tmp_path: Path, monkeypatch) -> None:
    looked: list[str] = []
    monkeypatch.setattr(preflight, "_complete", set())
    monkeypatch.setattr(preflight, "_check_split", lambda run, split, thorough: looked.append(split))
    for seed in range(2):
        check_run(planned(tmp_path, seed=seed))
    assert looked == list(SPLITS)


def test_missing_published_maskiges_are_found_by_a_dry_run(avsb, real_s4: Path) -> None:
    given = ["--method", "combo", "--no-pretrained", "--data", real_s4, "--set", "maskige=published"]
    result = avsb("run", "--dry-run", *given)
    assert result.code == 4
    assert "maskiges of the train split are missing" in result.err
    assert avsb("sweep", "--dry-run", *given[:2], "--backbone", "r50", *given[3:]).code == 1


def test_maskiges_in_the_cache(copy: Path, tmp_path: Path, monkeypatch) -> None:
    """A plan looks at the first clip of a split, the run at all of them."""
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    run = combo(copy, "maskige=felzenszwalb")
    with pytest.raises(MissingDataError, match="`avsb data maskige .*` makes them"):
        check_run(run)
    clips = [clip for split in SPLITS for clip in run.dataset.clips(split)]
    make_maskiges(clips, "felzenszwalb", jobs=1)
    check_run(run, thorough=True)
    frame = clips[-1].frames[-1]
    maskige_files(run.dataset, clips[-1], "felzenszwalb")[-1].unlink()
    assert frame.is_file()
    monkeypatch.setattr(preflight, "_complete", set())
    check_run(run)
    with pytest.raises(MissingDataError, match="1 maskiges of the test split"):
        check_run(run, thorough=True)


@pytest.mark.parametrize("place", ["out", "out/runs", "out/results"])
def test_a_file_in_place_of_an_output_folder(avsb, tiny: str, real_s4: Path, tmp_path: Path, place: str):
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.write_text("a file")
    given = ["--method", tiny, "--data", real_s4, "--out", tmp_path / "out"]
    for command in (["run", "--dry-run"], ["run"], ["train"], ["sweep", "--backbone", "r50", "--dry-run"]):
        result = avsb(*command, *given)
        assert result.code == 1
        assert f"error: {path} needs a folder where there is a file" in result.err
    assert path.read_text() == "a file"


@pytest.mark.parametrize(("flag", "message"), [(0, "No permission for"), (os.ST_RDONLY, "read-only")])
def test_an_output_folder_without_permission(
    avsb, tiny: str, real_s4: Path, tmp_path: Path, monkeypatch, flag: int, message: str
) -> None:
    """Root may write everywhere, so that the answer of the system is replaced."""

    class Found:
        f_flag = flag

    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda path: Found)
    result = avsb("run", "--dry-run", "--method", tiny, "--data", real_s4, "--out", tmp_path / "a" / "b")
    assert result.code == 1
    assert message in result.err
    assert str(tmp_path) in result.err


def test_nothing_is_created(tmp_path: Path) -> None:
    check_output(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
