"""``avsb reproduce``."""

from __future__ import annotations

import json
from pathlib import Path


def test_a_rerun_is_bitwise_identical(
    avsb, tiny: str, real_s4: Path, tmp_path: Path, quick_options: list[object]
) -> None:
    ran = avsb("run", "--method", tiny, *quick_options, "--set", "optimizer.lr=0.02", "--json")
    assert ran.code == 0, ran.err
    record = tmp_path / "results" / f"{ran.json['run_id']}.json"
    given = ("--data", real_s4, "--method", tiny)
    again = avsb("reproduce", record, "--out", tmp_path / "again", *given, "--json")
    assert again.code == 0, again.err
    assert {metric["verdict"] for metric in again.json["metrics"]} == {"same bits"}
    assert again.json["differences"] == []
    same = avsb("reproduce", record, "--out", tmp_path, *given)
    assert same.code == 2
    assert "pass another folder" in same.err

    changed = json.loads(record.read_text())
    changed["scores"][0]["metrics"]["J"] += 0.1
    changed["scores"][0]["metrics"]["F"] += 1e-6
    changed["environment"]["packages"]["torch"] = "0.1"
    other = tmp_path / "other" / record.name
    other.parent.mkdir()
    other.write_text(json.dumps(changed))
    again = avsb("reproduce", other, "--out", tmp_path / "again", *given, "--json")
    assert again.code == 1
    words = {metric["metric"]: metric["verdict"] for metric in again.json["metrics"]}
    assert (words["J"], words["F"]) == ("different", "within tolerance")
    assert any(line.startswith("torch: 0.1 then") for line in again.json["differences"])
