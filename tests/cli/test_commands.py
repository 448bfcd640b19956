"""Every command once for what it is for, and once for what goes wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def finished(avsb, tiny: str, real_s4: Path, tmp_path: Path) -> Path:
    """A folder in which the tiny method ran on the small real set."""
    result = avsb("run", "--method", tiny, "--data", real_s4, "--out", tmp_path, "--device", "cpu")
    assert result.code == 0, result.err
    return tmp_path


def test_run_ends_in_submission_record_and_leaderboard(
    avsb, finished: Path, tiny: str, real_s4: Path
) -> None:
    (record,) = (finished / "results").glob("*.json")
    values = json.loads(record.read_text())
    assert values["scores"][0]["protocol"] == "object/1"
    assert values["spec_hash"].startswith(record.stem.rsplit("-", 1)[1])
    assert values["environment"]["packages"]["torch"]
    assert (finished / "submissions" / f"{record.stem}.npz").is_file()
    assert record.stem in (finished / "results" / "LEADERBOARD.md").read_text()
    clips = record.with_suffix(".clips.csv").read_text().splitlines()
    assert len(clips) == 1 + values["scores"][0]["clips"]
    again = avsb("run", "--method", tiny, "--data", real_s4, "--out", finished, "--device", "cpu", "--json")
    assert again.code == 0
    assert again.json == values


def test_the_steps_one_by_one_give_the_same_record(avsb, finished: Path, tiny: str, real_s4: Path) -> None:
    (record,) = (finished / "results").glob("*.json")
    apart = finished / "apart"
    common = ("--method", tiny, "--data", real_s4, "--out", apart, "--device", "cpu")
    assert avsb("predict", *common).code == 4
    assert avsb("train", *common).code == 0
    assert avsb("predict", *common, "--split", "val", "--json").json["split"] == "val"
    submission = Path(avsb("predict", *common, "--json").json["submission"])
    scored = avsb("score", submission, "--out", apart, "--json")
    assert scored.code == 0, scored.err
    one, two = (json.loads(path.read_text()) for path in (record, apart / "results" / record.name))
    for values in (one, two):
        values.pop("created")
        for measured in ("seconds", "clips_per_second", "memory_gib"):
            values["training"].pop(measured)
    assert one == two


def test_dry_run_computes_nothing(avsb, tiny: str, real_s4: Path, tmp_path: Path) -> None:
    common = ("run", "--method", tiny, "--data", real_s4, "--out", tmp_path, "--dry-run")
    shown = avsb(*common, "--json").json
    assert shown["run"].endswith(shown["hash"][:10])
    assert f"# hash: {shown['hash']}" in avsb(*common).out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "--method", "avsegforner"], 2, "Did you mean 'avsegformer'"),
        (["run", "--method", "avsegformer", "--set", "epoch=1"], 2, "Did you mean 'epochs'"),
        (["run", "--method", "avsegformer", "--data", "nowhere"], 4, "nowhere"),
        (["leaderboard", "--results", "nowhere"], 4, "no folder nowhere"),
        (["data", "check"], 4, "AVSB_DATA_DIR"),
        (["data", "synth", "--task", "s4", "--clips", "1,2", "--out", "x"], 2, "TRAIN,VAL,TEST"),
        (["weights", "add", "vggish", "none.pth"], 2, r"none.pth"),
        (["score", "none.npz"], 4, "none.npz"),
        (["methods", "avsegforme"], 2, "Did you mean 'avsegformer'"),
    ],
)
def test_errors_are_one_line_with_their_code(
    avsb, tmp_path: Path, monkeypatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = avsb(*arguments)
    assert result.code == code
    assert message in result.err
    assert "Traceback" not in result.err
    as_json = avsb(*arguments, "--json")
    assert as_json.code == code
    assert as_json.json["exit_code"] == code
    assert message in as_json.json["error"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_methods_lists_and_prints_cards(avsb) -> None:
    assert "avsegformer" in avsb("methods").out
    (entry,) = [entry for entry in avsb("methods", "--json").json if entry["name"] == "avsegformer"]
    assert entry["tasks"] == ["s4", "ms3", "avss"]
    assert "AVSegFormer" in avsb("methods", "avsegformer").out


def test_data_synth_check_info_solution(avsb, tmp_path: Path) -> None:
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


def test_a_foreign_submission_is_recorded_only_when_asked(avsb, finished: Path, tmp_path: Path) -> None:
    (submission,) = (finished / "submissions").glob("*.npz")
    away = tmp_path / "away"
    away.mkdir()
    copy = away / "theirs.npz"
    shutil.copy(submission, copy)
    assert avsb("score", copy, "--out", away).code == 0
    assert not (away / "results").exists()
    assert avsb("score", copy, "--out", away, "--record").code == 0
    (record,) = (away / "results").glob("*.json")
    assert json.loads(record.read_text())["spec"] is None
    assert avsb("leaderboard", "--results", away / "results").code == 0


def test_doctor_and_weights_list(avsb) -> None:
    facts = avsb("doctor", "--json")
    assert facts.code == 0
    assert facts.json["methods"]["avsegformer"] == "from avsbench-harness"
    assert avsb("doctor").code == 0
    assert avsb("weights", "list", "--json").code == 0


def test_python_m_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "avsbench_harness", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("avsb ")


@pytest.mark.slow
def test_maskiges_are_asked_for_made_and_used(
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


def test_maskiges_are_for_networks_that_see_them(avsb, real_s4: Path, tmp_path: Path) -> None:
    common = ("run", "--data", real_s4, "--out", tmp_path, "--no-pretrained", "--dry-run", "--json")
    combo = (*common, "--method", "combo")
    assert avsb(*combo).json["spec"]["recipe"]["maskige"] == "published"
    without = avsb(*combo, "--set", "options.use_maskige=false").json
    assert without["spec"]["recipe"]["maskige"] is None
    both = ("--set", "options.use_maskige=false", "--set", "maskige=null")
    assert avsb(*combo, *both).json["run"] == without["run"]
    refused = avsb(*common, "--method", "tpavi", "--set", "maskige=felzenszwalb")
    assert refused.code == 2
    assert "maskige is 'felzenszwalb', but tpavi takes none; leave it out" in refused.json["error"]


def test_clips_are_decoded_ahead_of_runs(avsb, real_s4: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    common = ("data", "cache", real_s4, "--task", "s4", "--size", "32")
    first = avsb(*common, "--json").json
    assert [part["split"] for part in first] == ["train", "val", "test"]
    assert all(part["decoded"] == part["clips"] > 0 for part in first)
    # Five frames of three colours and a mask.
    assert [part["bytes"] for part in first] == [part["clips"] * 5 * 4 * 32 * 32 for part in first]
    log_mels = [(part["sound"]["form"], part["sound"]["clips"]) for part in first]
    assert log_mels == [("log-mels", part["clips"]) for part in first]
    kept = tmp_path / "cache" / "log-mels" / "5x1x96x64" / "arrays.bin"
    assert kept.stat().st_size == sum(part["clips"] for part in first) * 5 * 96 * 64 * 4
    again = avsb(*common, "--split", "test")
    assert again.code == 0
    assert again.out.startswith(f"test: 0 of {first[2]['clips']} clips decoded, 0.0 MB written to ")
    assert str(tmp_path / "cache") in again.out
    assert f"test: sound of {first[2]['clips']} clips as log-mels" in again.out
    assert "sound" not in avsb(*common, "--no-sound").out
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


@pytest.mark.parametrize("other", [("--html", "site"), ("--backbone", "r50"), ("--format", "csv")])
def test_a_check_of_the_page_writes_nothing_else(avsb, data: Path, other: tuple[str, str]) -> None:
    refused = avsb("leaderboard", "--results", data / "records", "--check", *other)
    assert refused.code == 2
    assert "--check only checks LEADERBOARD.md" in refused.err
