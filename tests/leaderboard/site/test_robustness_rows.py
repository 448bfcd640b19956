"""Robustness below a leaderboard table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from avsbench_harness.leaderboard.site.robustness_rows import robustness_rows
from avsbench_harness.leaderboard.tables import build_tables
from avsbench_harness.results.folder import Results

from ...results.records import make_record


def write(folder: Path, run_id: str, conditions: dict[str, tuple[float, float | None]], **data: Any) -> Path:
    """A robustness record with J and its gain by condition; its values are not checked here."""

    def entry(name: str, j: float, gain: float | None) -> dict[str, Any]:
        score = {
            "protocol": "object/1", "part": "all", "batch": None, "main": ["J", "F"], "clips": 5,
            "metrics": {"J": j, "F": 0.5}, "intervals": {},
        }  # fmt: skip
        gains = None if gain is None else {"J": {"value": gain, "interval": [gain - 0.1, gain + 0.1]}}
        return {"condition": name, "submission_sha256": "0" * 64, "score": score, "gain": gains}

    values = {
        "format": 1, "run_id": run_id, "spec_hash": "0" * 64, "task": "s4", "left_out": [],
        "data": {"name": "avsbench", "split": "test", "synthetic": False, "solution": "f" * 64, **data},
        "conditions": [entry(name, *pair) for name, pair in conditions.items()],
    }  # fmt: skip
    path = folder / "robustness" / f"{run_id}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(values))
    return path


def test_conditions_are_columns_and_runs_without_a_record_are_left_out(tmp_path: Path) -> None:
    records = (make_record("a", 0.7), make_record("b", 0.6, method="catr"))
    (table,) = build_tables(records)
    results = Results(tmp_path, records)
    assert robustness_rows(table, results) is None
    write(tmp_path, "a", {"clean": (0.7, None), "swapped": (0.4, 0.3), "noise": (0.65, 0.05)})
    found = robustness_rows(table, results)
    assert found is not None
    assert found["conditions"] == ["clean", "swapped", "noise"]
    (row,) = found["rows"]
    assert row["seeds"] == "1 of 1 seeds"
    assert [cell["text"] for cell in row["cells"]] == ["70.0", "40.0", "65.0"]
    assert [cell["gain"] for cell in row["cells"]] == [
        "", "gain +30.0 (+20.0 to +40.0)", "gain +5.0 (-5.0 to +15.0)",
    ]  # fmt: skip
    assert [cell["significant"] for cell in row["cells"]] == [False, True, False]


def test_conditions_that_a_run_lacks_are_named(tmp_path: Path) -> None:
    records = (make_record("a", 0.7), make_record("b", 0.6, method="catr"))
    (table,) = build_tables(records)
    write(tmp_path, "a", {"clean": (0.7, None), "silence": (0.1, 0.6)})
    write(tmp_path, "b", {"clean": (0.6, None)})
    found = robustness_rows(table, Results(tmp_path, records))
    assert found is not None
    assert found["rows"][1]["cells"][1]["text"] == "n/a (not measured)"


def test_refused_damaged_and_foreign_records_are_not_shown(tmp_path: Path) -> None:
    records = (make_record("a", 0.7),)
    (table,) = build_tables(records)
    path = write(tmp_path, "a", {"clean": (0.7, None), "swapped": (0.4, 0.3)})
    results = Results(tmp_path, records)
    assert robustness_rows(table, replace(results, refused_robustness=((path, "a fault"),))) is None
    write(tmp_path, "a", {"clean": (0.7, None)}, solution="e" * 64)
    assert robustness_rows(table, results) is None
    path.write_text("{")
    assert robustness_rows(table, results) is None
