"""``avsb results``."""

from __future__ import annotations

from pathlib import Path


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
