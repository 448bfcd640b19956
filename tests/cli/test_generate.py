"""``avsb data mini`` and ``compose``."""

from __future__ import annotations

from pathlib import Path

from avsbench_harness.data.mini.media import FOLDER


def test_mini_makes_all_tasks_and_is_a_data_set_of_its_own(avsb, tmp_path: Path) -> None:
    made = avsb("data", "mini", "--out", tmp_path / "m", "--clips", "1,1,1", "--jobs", "1", "--json")
    assert made.code == 0
    assert [(one["task"], one["name"]) for one in made.json] == [
        (task, "AVS-Mini v1 variant") for task in ("s4", "ms3", "avss")
    ]
    info = avsb("data", "info", tmp_path / "m", "--json").json
    assert [one["fingerprint"] for one in info] == [one["fingerprint"] for one in made.json]
    again = avsb("data", "mini", "--out", tmp_path / "m", "--clips", "1,1,1")
    assert again.code == 2
    assert "not an empty folder" in again.err


def test_compose_uses_other_media(avsb, tmp_path: Path) -> None:
    common = ("data", "compose", "--sounds", FOLDER / "sounds", "--clips", "2,1,1", "--task", "ms3")
    made = avsb(*common, "--pictures", FOLDER / "pictures", "--out", tmp_path / "c", "--name", "lab")
    assert made.code == 0
    assert "lab, ms3: 2 train, 1 val, 1 test clips" in made.out
    assert avsb("data", "check", tmp_path / "c").code == 0
    missing = avsb(*common, "--pictures", tmp_path / "none", "--out", tmp_path / "d")
    assert missing.code == 4
    assert not (tmp_path / "d").exists()
    assert avsb(*common, "--pictures", FOLDER / "pictures", "--out", tmp_path / "d", "--task", "s5").code == 2
