"""``avsb leaderboard``."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


def test_output_formats(avsb, tiny: str, real_s4: Path, tmp_path: Path, quick_options: list[object]) -> None:
    assert avsb("run", "--method", tiny, *quick_options).code == 0
    results = ("--results", tmp_path / "results")
    assert avsb("leaderboard", *results, "--format", "csv").out.startswith("task,data,")
    assert r"\begin{tabular}" in avsb("leaderboard", *results, "--format", "latex").out
    assert avsb("leaderboard", *results, "--format", "json").json[0]["rows"][0]["method"] == "tiny"
    assert "| tiny" not in avsb("leaderboard", *results, "--backbone", "pvt").out
    assert avsb("leaderboard", *results, "--format", "word").code == 2
    assert avsb("leaderboard", *results, "--check").code == 0
    (tmp_path / "results" / "LEADERBOARD.md").write_text("old")
    stale = avsb("leaderboard", *results, "--check")
    assert stale.code == 1
    assert "update it with `avsb leaderboard`" in stale.err
    site = avsb("leaderboard", *results, "--html", tmp_path / "site", "--data", real_s4)
    assert site.code == 0
    assert (tmp_path / "site" / "index.html").is_file()


@pytest.mark.parametrize("other", [("--html", "site"), ("--backbone", "r50"), ("--format", "csv")])
def test_check_excludes_options_that_write(avsb, data: Path, other: tuple[str, str]) -> None:
    refused = avsb("leaderboard", "--results", data / "records", "--check", *other)
    assert refused.code == 2
    assert "--check only checks LEADERBOARD.md" in refused.err


def test_refused_files_and_a_missing_data_folder_are_reported(avsb, data: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(data / "records", results)
    (results / "bad\x1b[31m.json").write_text("{")
    shown = avsb("leaderboard", "--results", results, "--format", "md")
    assert shown.code == 0
    assert "| 1 | combo (paper) |" in shown.out
    assert "refused: bad\ufffd[31m.json: unreadable: " in shown.err
    assert "\x1b" not in shown.out + shown.err
    assert "\x1b" not in avsb("results", "validate", "--results", results).out
    values = avsb("leaderboard", "--results", results, "--json").json
    assert [one["file"] for one in values["refused"]] == ["bad\x1b[31m.json"]
    site = tmp_path / "site"
    missing = avsb("leaderboard", "--results", results, "--html", site, "--data", tmp_path / "none")
    assert missing.code == 4
    assert f"The data folder {tmp_path / 'none'} does not exist; pass the folder" in missing.err
    assert not site.exists()
