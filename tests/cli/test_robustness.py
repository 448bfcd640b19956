"""``avsb robustness``."""

from __future__ import annotations

import json
from pathlib import Path


def test_finished_runs_are_measured_once(avsb, finished: Path, tiny: str, real_s4: Path) -> None:
    (run,) = [path.name for path in (finished / "runs").iterdir()]
    common = ("--data", real_s4, "--out", finished, "--method", tiny, "--device", "cpu")
    first = avsb("robustness", run, *common, "--json")
    assert first.code == 0, first.err
    (record,) = first.json
    path = finished / "results" / "robustness" / f"{run}.json"
    assert json.loads(path.read_text()) == record
    clean, *_, swapped, _, _, _ = record["conditions"]
    known = json.loads((finished / "results" / f"{run}.json").read_text())
    assert clean["score"] == known["scores"][0]
    assert clean["submission_sha256"] == known["submission_sha256"]
    assert record["spec_hash"] == known["spec_hash"]
    assert swapped["condition"] == "swapped"
    written = path.stat().st_mtime_ns
    again = avsb("robustness", "s4-*", "all", *common)
    assert again.code == 0
    assert f"{run}: custom, s4 test, object/1" in again.out
    assert "area under J from -10 to 10 dB: " in again.out
    assert f"{100 * swapped['gain']['J']['value']:+.1f}" in again.out
    assert path.stat().st_mtime_ns == written
    assert avsb("results", "validate", "--results", finished / "results").out == (
        "1 records, 0 measurements, 1 robustness records, 0 faults\n"
    )


def test_swapped_predictions_are_not_recorded_as_the_run(
    avsb, finished: Path, tiny: str, real_s4: Path
) -> None:
    (run,) = [path.name for path in (finished / "runs").iterdir()]
    common = ("--data", real_s4, "--out", finished, "--method", tiny, "--device", "cpu")
    assert avsb("robustness", run, *common).code == 0
    (finished / "results" / f"{run}.json").unlink()
    swapped = finished / "submissions" / f"{run}-swapped.npz"
    assert avsb("score", swapped, "--data", real_s4, "--out", finished).code == 0
    assert [path.name for path in (finished / "results").glob("*.json")] == []


def test_faults_of_robustness_records_are_listed(avsb, finished: Path, tiny: str, real_s4: Path) -> None:
    common = ("--data", real_s4, "--out", finished, "--method", tiny, "--device", "cpu")
    (record,) = avsb("robustness", "all", *common, "--json").json
    path = finished / "results" / "robustness" / f"{record['run_id']}.json"
    swapped = next(entry for entry in record["conditions"] if entry["condition"] == "swapped")
    swapped["sensitivity"] = 0.123
    path.write_text(json.dumps(record))
    checked = avsb("results", "validate", "--results", finished / "results")
    assert checked.code == 1
    assert "swapped: sensitivity is 0.123, but the per-clip file gives" in checked.out
    refused = avsb("robustness", "all", *common)
    assert refused.code == 2
    assert "remove it to measure the run again" in refused.err


def test_wrong_runs_and_data_are_refused(avsb, finished: Path, tiny: str, tmp_path: Path) -> None:
    common = ("--out", finished, "--method", tiny)
    unknown = avsb("robustness", "all", *common, "--conditions", "swapped,loud")
    assert unknown.code == 2
    assert "Unknown audio condition 'loud'" in unknown.err
    missing = avsb("robustness", "nothing", *common)
    assert missing.code == 2
    assert "Unknown finished run 'nothing'" in missing.err
    assert avsb("robustness", "all", *common, "--split", "later").code == 2
    assert avsb("robustness", "all", "--out", tmp_path / "none").code == 4
    without = avsb("robustness", "all", *common, "--json")
    assert without.code == 4
    assert "pass --data ROOT" in without.json["error"]


def test_a_failure_does_not_stop_the_other_runs(avsb, finished: Path, tiny: str, real_s4: Path) -> None:
    broken = finished / "runs" / "broken"
    broken.mkdir()
    for name in ("spec.json", "training.json"):
        (broken / name).write_text("{}")
    found = avsb("robustness", "all", "--data", real_s4, "--out", finished, "--method", tiny, "--json")
    assert found.code == 2
    measured, failed = found.json
    assert len(measured["conditions"]) == 8
    assert failed["run_id"] == "broken"
    assert failed["exit_code"] == 2
