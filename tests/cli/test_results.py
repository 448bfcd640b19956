"""``avsb results``."""

from __future__ import annotations

import json
from pathlib import Path

from avsbench_harness.submission.codes import THRESHOLDS


def test_records_are_validated(avsb, tiny: str, tmp_path: Path, quick_options: list[object]) -> None:
    run = avsb("run", "--method", tiny, *quick_options, "--json").json["run_id"]
    results = tmp_path / "results"
    assert avsb("results", "validate", "--results", results).out == "1 records, 0 measurements, 0 faults\n"
    path = results / f"{run}.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    wrong = avsb("results", "validate", "--results", results)
    assert wrong.code == 1
    assert "spec_hash is not the hash of the spec" in wrong.out
    assert avsb("results", "schema").json["title"] == "Record"
    assert avsb("results", "validate", "--results", tmp_path / "none").code == 4


def test_submissions_at_hand_are_scored_again(
    avsb, tiny: str, tmp_path: Path, quick_options: list[object]
) -> None:
    run = avsb("run", "--method", tiny, *quick_options, "--set", "protocols=[davis]", "--json").json["run_id"]
    results = tmp_path / "results"
    path = results / f"{run}.json"
    genuine = path.read_text()
    claims = ((0, "threshold", float(THRESHOLDS[200])), (1, "F_recall", 0.4321))
    for protocol, metric, claim in claims:  # neither metric follows from the per-clip file
        values = json.loads(genuine)
        values["scores"][protocol]["metrics"][metric] = claim
        path.write_text(json.dumps(values))
        wrong = avsb("results", "validate", "--results", results)
        assert wrong.code == 1
        assert f"{metric} is {claim}, but the submission gives" in wrong.out
    path.write_text(genuine)
    assert avsb("results", "validate", "--results", results).code == 0
    submission = tmp_path / "submissions" / f"{run}.npz"
    submission.write_bytes(submission.read_bytes() + b"x")
    assert "is not the submission that was scored" in avsb("results", "validate", "--results", results).out
