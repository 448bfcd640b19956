"""``avsb data synth``, ``check``, ``info``, ``solution``, ``maskige`` and ``cache``."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_synth_check_info_and_solution(avsb, tmp_path: Path) -> None:
    root = tmp_path / "made"
    made = avsb("data", "synth", "--task", "ms3", "--clips", "2,1,1", "--out", root, "--seed", "3", "--json")
    assert made.code == 0
    check = avsb("data", "check", root, "--json")
    assert (check.code, check.json["ok"]) == (0, True)
    info = avsb("data", "info", root, "--json").json
    assert info[0]["fingerprint"] == made.json["fingerprint"]
    solution = avsb("data", "solution", root, "--task", "ms3", "--out", tmp_path / "s.npz", "--json")
    assert (solution.code, solution.json["synthetic"]) == (0, True)
    broken = next(root.rglob("gt_masks/test/**/*.png"))
    broken.unlink()
    check = avsb("data", "check", root)
    assert check.code == 4
    assert broken.name in " ".join(check.out.split())
    broken.write_bytes(b"no picture")
    assert avsb("data", "check", root).code == 2


@pytest.mark.slow
def test_missing_maskiges_are_made_and_used(
    avsb, tiny: str, real_s4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    common = ("run", "--method", tiny, "--data", real_s4, "--out", tmp_path, "--device", "cpu")
    published = avsb(*common, "--set", "maskige=published")
    assert published.code == 4
    assert "maskige=felzenszwalb" in published.err
    made = ("--set", "maskige=felzenszwalb", "--set", "iterations=1")
    missing = avsb(*common, *made)
    assert missing.code == 4
    assert f"`avsb data maskige {real_s4} --task s4` makes them" in missing.err
    assert avsb("data", "maskige", real_s4, "--task", "s4", "--jobs", "1", "--json").json["made"] == 45
    assert avsb(*common, *made).code == 0
    assert avsb(*common, "--set", "maskige=felzenswalb").code == 2


def test_cache_decodes_clips_before_runs(avsb, real_s4: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    common = ("data", "cache", real_s4, "--task", "s4", "--size", "32")
    first = avsb(*common, "--json").json
    assert [part["split"] for part in first] == ["train", "val", "test"]
    assert all(part["decoded"] == part["clips"] > 0 for part in first)
    # Five frames of three colours and a mask.
    assert [part["bytes"] for part in first] == [part["clips"] * 5 * 4 * 32 * 32 for part in first]
    log_mels = [(part["audio"]["form"], part["audio"]["clips"]) for part in first]
    assert log_mels == [("log-mels", part["clips"]) for part in first]
    (kept,) = (tmp_path / "cache" / "log-mels").glob("*/data.bin")
    note = "lasts 2.7 s, but its clip 5 s"  # of one recording, stored beside its values
    assert kept.stat().st_size == sum(part["clips"] for part in first) * 5 * 96 * 64 * 4 + len(note)
    again = avsb(*common, "--split", "test")
    assert again.code == 0
    assert again.out.startswith(f"test: 0 of {first[2]['clips']} clips decoded, 0.0 MB written to ")
    assert str(tmp_path / "cache") in again.out
    assert f"test: audio of {first[2]['clips']} clips as log-mels" in again.out
    assert "audio" not in avsb(*common, "--no-audio").out
    unpainted = avsb(*common, "--maskige", "felzenszwalb")
    assert unpainted.code == 4
    assert "`avsb data maskige" in unpainted.err
    unknown = avsb(*common, "--fit", "padd")
    assert unknown.code == 2
    assert "Did you mean 'pad'?" in unknown.err
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "file"))
    unwritable = avsb(*common)
    assert unwritable.code == 1
    assert "set AVSB_CACHE_DIR to another folder" in unwritable.err
