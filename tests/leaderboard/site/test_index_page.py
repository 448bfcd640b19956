"""Tabs of the index page."""

from __future__ import annotations

from pathlib import Path

import pytest

from avsbench_harness.leaderboard.site.index_page import index_values
from avsbench_harness.leaderboard.tables import build_tables
from avsbench_harness.results.folder import Results, read_results

from ...results.records import make_record


def values(records: list, folder: Path) -> dict:
    return index_values(build_tables(records), Results(folder, tuple(records)), {})


def test_every_task_has_a_tab_with_reported_values(tmp_path: Path) -> None:
    made = values([], tmp_path)
    assert [(tab["group"], tab["label"]) for tab in made["tabs"]] == [
        ("AVSBench", "S4"),
        ("AVSBench", "MS3"),
        ("AVSBench", "AVSS"),
    ]
    assert all(tab["reported"] and not tab["measured"] for tab in made["tabs"])
    assert made["first"] == made["tabs"][0]["id"]


def test_measured_and_reported_rows_share_the_tab_of_real_data(tmp_path: Path) -> None:
    real = make_record("a", 0.7, data={"name": "AVSBench"})
    synthetic = make_record("b", 0.9, data={"name": "synthetic", "synthetic": True, "solution": "b" * 64})
    made = values([real, synthetic], tmp_path)
    s4 = [tab for tab in made["tabs"] if tab["label"] == "S4"]
    assert [(tab["group"], len(tab["measured"]), bool(tab["reported"])) for tab in s4] == [
        ("AVSBench", 1, True),
        ("synthetic", 1, False),
    ]
    assert made["first"] == s4[0]["id"]
    (row,) = s4[0]["measured"]
    assert row["scores"][0] == {
        "value": 70.0,
        "text": "70.0",
        "spread": "69.0-71.0",
        "low": pytest.approx(69),
        "high": pytest.approx(71),
    }
    assert [one["text"] for one in row["known"]] == ["J 84.7, F 91.9"]  # COMBO with PVT-v2, Table 1


def test_seeds_have_mean_and_standard_deviation(tmp_path: Path) -> None:
    records = [make_record(f"r{seed}", j, seed=seed) for seed, j in enumerate((0.7, 0.8, 0.9))]
    (row,) = next(tab for tab in values(records, tmp_path)["tabs"] if tab["measured"])["measured"]
    score = row["scores"][0]
    assert (score["text"], score["spread"], score["low"], score["high"]) == (
        "80.0",
        "± 10.0",
        pytest.approx(70),
        pytest.approx(90),
    )
    assert len(row["runs"]) == 3


def test_failed_runs_are_below_their_table(data: Path) -> None:
    results = read_results(data / "records")
    made = index_values(build_tables(results.records, results), results, {})
    failed = [one["id"] for tab in made["tabs"] for one in tab["failed"]]
    assert failed == ["s4-tiny-r50-s0-8f7369b6b7"]
    assert made["failures"] == []
    assert made["counts"]["failed"] == 1
