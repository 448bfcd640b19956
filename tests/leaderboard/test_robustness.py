"""The page with scores under audio conditions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

CONDITIONS = "silence,swapped,mixed@0,mixed@10"


@pytest.fixture
def measured(avsb, tiny: str, real_s4: Path, tmp_path: Path) -> Path:
    common = ("--method", tiny, "--data", real_s4, "--out", tmp_path, "--device", "cpu", "--set", "epochs=1")
    result = avsb(
        "run", *common, "--robustness", "--conditions", "silence,swapped,mixed@0,mixed@10", "--json"
    )
    assert result.code == 0, result.err
    assert len(result.json["robustness"]["conditions"]) == 5
    return tmp_path / "results"


def test_the_page_has_every_condition_and_is_checked(avsb, measured: Path) -> None:
    page = measured / "ROBUSTNESS.md"
    (path,) = (measured / "robustness").glob("*.json")
    record = json.loads(path.read_text())
    text = page.read_text()
    scores, metrics = (line for line in text.splitlines() if line.startswith("| method |"))
    assert scores == (
        "| method | backbone | recipe | clean | silence | swapped | mixed\\@10 | mixed\\@0 | records |"
    )
    assert metrics == (
        "| method | backbone | recipe | FPR silence | S silence | AUC\\_N silence | gain | sensitivity | "
        "J over 0, 10 dB | records |"
    )
    entries = {entry["condition"]: entry for entry in record["conditions"]}
    for name, entry in entries.items():
        assert f"{100 * entry['score']['metrics']['J']:.1f} (" in text, name
    assert f"{100 * entries['silence']['metrics']['s/1']['value']:.1f} (" in text
    assert f"{100 * record['snr']['area']['value']:.1f} (" in text
    assert f"(robustness/{record['run_id']}.json)" in text
    assert avsb("leaderboard", "--results", measured, "--check").code == 0
    page.write_text(text + "changed")
    refused = avsb("leaderboard", "--results", measured, "--check")
    assert refused.code == 1
    assert "ROBUSTNESS.md differs from the records; update it with `avsb leaderboard`." in refused.err
    assert avsb("leaderboard", "--results", measured).code == 0
    assert page.read_text() == text
    path.unlink()
    assert avsb("leaderboard", "--results", measured).code == 0
    assert not page.exists()


def test_conditions_without_the_suite_are_refused(avsb, tiny: str, real_s4: Path, tmp_path: Path) -> None:
    common = ("run", "--method", tiny, "--data", real_s4, "--out", tmp_path, "--device", "cpu")
    found = avsb(*common, "--conditions", "silence")
    assert found.code == 2
    assert "--conditions has no effect without --robustness" in found.err
    assert avsb(*common, "--robustness", "--conditions", "loud").code == 2
    assert not (tmp_path / "runs").exists()
