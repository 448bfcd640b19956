"""``avsb run``, ``avsb train`` and ``avsb predict``."""

from __future__ import annotations

import json
from pathlib import Path


def test_run_writes_submission_record_and_leaderboard(avsb, finished: Path, tiny: str, real_s4: Path) -> None:
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


def test_train_predict_and_score_give_the_same_record(avsb, finished: Path, tiny: str, real_s4: Path) -> None:
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


def test_dry_run_writes_nothing(avsb, tiny: str, real_s4: Path, tmp_path: Path) -> None:
    common = ("run", "--method", tiny, "--data", real_s4, "--out", tmp_path, "--dry-run")
    shown = avsb(*common, "--json").json
    assert shown["run"].endswith(shown["hash"][:10])
    assert f"# hash: {shown['hash']}" in avsb(*common).out
    assert list(tmp_path.iterdir()) == []


def test_maskige_is_only_for_models_that_use_it(avsb, real_s4: Path, tmp_path: Path) -> None:
    common = ("run", "--data", real_s4, "--out", tmp_path, "--no-pretrained", "--dry-run", "--json")
    combo = (*common, "--method", "combo")
    missing = avsb(*combo)
    assert missing.code == 4
    assert "maskiges of the train split are missing" in missing.json["error"]
    without = avsb(*combo, "--set", "options.use_maskige=false").json
    assert without["spec"]["recipe"]["maskige"] is None
    both = ("--set", "options.use_maskige=false", "--set", "maskige=null")
    assert avsb(*combo, *both).json["run"] == without["run"]
    refused = avsb(*common, "--method", "tpavi", "--set", "maskige=felzenszwalb")
    assert refused.code == 2
    assert "maskige is 'felzenszwalb', but tpavi takes none; leave it out" in refused.json["error"]


def test_trackers_are_checked_first(avsb, tiny: str, real_s4: Path, tmp_path: Path) -> None:
    common = ("train", "--method", tiny, "--data", real_s4, "--out", tmp_path, "--device", "cpu")
    unknown = avsb(*common, "--log", "tensorbord")
    assert unknown.code == 2
    assert "Unknown tracker 'tensorbord'. Did you mean 'tensorboard'?" in unknown.err
    assert list(tmp_path.iterdir()) == []
    assert avsb(*common, "--log", "tensorboard", "--json").json["steps"] > 0
    assert list(tmp_path.glob("runs/*/tensorboard/events*"))
