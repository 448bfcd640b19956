"""``avsb segment``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from avsbench_harness.testing.videos import write_test_video
from avsbench_harness.video.probe import probe


def test_without_a_model_it_says_how_to_get_one(avsb, tmp_path: Path) -> None:
    video = write_test_video(tmp_path / "v.mp4")
    result = avsb("segment", video, "--runs", tmp_path)
    assert result.code == 4
    for part in ("--with", "avsb demo", "avsb weights import", "no general-purpose weights"):
        assert part in result.err


def test_without_pyav_it_says_what_to_install(
    avsb, untrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    result = avsb("segment", tmp_path / "v.mp4", "--with", untrained("s4"))
    assert result.code == 2
    assert 'pip install "avsbench-harness[video]"' in result.err


def test_several_videos(avsb, untrained, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_test_video(tmp_path / "one.mp4")
    write_test_video(tmp_path / "two.mkv", silent=True)
    (tmp_path / "bad.mp4").write_text("text")
    model = ("--with", untrained("avss"), "--method", tiny, "--device", "cpu")
    result = avsb(
        "segment", "one.mp4", "bad.mp4", "two.mkv", *model, "--out", "made", "--masks", "masks", "--json"
    )
    assert result.code == 2
    one, two, bad = result.json
    assert (one["video"], two["video"], bad["video"]) == ("one.mp4", "two.mkv", "bad.mp4")
    assert one["overlay"] == "made/one-segmented.mp4"
    assert probe(tmp_path / one["overlay"]).sound_rate == 16_000
    assert bad["exit_code"] == 2
    assert (tmp_path / one["masks"]).name == "one.coco.json"
    names = {label["name"] for label in one["predictions"][0]["objects"]}
    text = avsb("segment", "one.mp4", *model, "--out", "again.webm")
    assert text.code == 0
    assert all(name in text.out for name in names)
    assert "0.00 to" in text.out
    assert "1 of 1 windows are padded" in text.out
    assert probe(tmp_path / "again.webm").seconds == pytest.approx(2, abs=0.1)


def test_one_video_that_fails_is_one_sentence(avsb, untrained, tiny: str, tmp_path: Path) -> None:
    result = avsb("segment", tmp_path, "--with", untrained("s4"), "--method", tiny)
    assert result.code == 2
    assert result.err.strip().endswith("is a folder; pass video files.")
