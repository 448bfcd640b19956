"""`avsb methods`: the list, one method, and a new one."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.slow
def test_one_method_with_its_parameters_and_recipes(avsb) -> None:
    out = avsb("methods", "tpavi").out
    assert "without VGGish" in out
    assert "Audio-Visual" in out  # the model card
    assert "140.3" in out
    assert "Recipe full: released, r50, s4" in out
    found = avsb("methods", "tpavi", "--json").json
    assert set(found) == {"name", "card", "sizes", "recipes"}
    assert found["sizes"][0]["parameters"] == 68_157_697
    assert {size["variant"] for size in found["sizes"]} == {"released", "paper"}
    assert len(found["recipes"]) == len(found["sizes"]) == 12
    assert found["recipes"][0]["recipe"]["epochs"] == 15


def test_the_list(avsb) -> None:
    assert "tpavi" in avsb("methods").out
    entries = {entry["name"]: entry for entry in avsb("methods", "--json").json}
    assert {"tpavi", "combo"} <= set(entries)
    assert entries["avsegformer"]["tasks"] == ["s4", "ms3", "avss"]
    assert avsb("methods").out == avsb("methods", "show").out


def test_an_unknown_method_is_a_usage_error(avsb) -> None:
    result = avsb("methods", "tpvai")
    assert result.code == 2
    assert "Did you mean 'tpavi'?" in result.err


def test_a_new_method(avsb, tmp_path: Path) -> None:
    found = avsb("methods", "new", "mine", "--out", tmp_path, "--json").json
    assert found["folder"] == str(tmp_path / "mine")
    assert all(Path(file).is_file() for file in found["files"])
    again = avsb("methods", "new", "mine", "--out", tmp_path)
    assert again.code == 2
    assert again.err == f"error: {tmp_path / 'mine'} already exists; choose another name or folder.\n"
