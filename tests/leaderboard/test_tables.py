"""Leaderboard tables: grouping of records into tables and rows, and ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avsbench_harness.leaderboard.tables import COLUMNS, build_tables
from avsbench_harness.results.folder import read_results
from avsbench_harness.scoring import score_object, score_semantic

from ..results.records import make_record, score_clips


def test_columns_are_metrics_of_the_canonical_protocols() -> None:
    masks = np.ones((1, 5, 8, 8), np.uint8)
    for scores in (score_object(masks * 255, masks), score_semantic(masks, masks)):
        assert {metric for metric, _ in COLUMNS[scores.protocol]} <= set(scores.metrics)


def test_recipes_with_the_same_name_have_separate_rows() -> None:
    made = [make_record("a", 0.7), make_record("b", 0.8, spec={"recipe": {"lr": 2}})]
    (table,) = build_tables(made)
    assert len(table.rows) == 2
    assert all(row.recipe.startswith("full ") for row in table.rows)


def test_a_changed_recipe_is_shown_without_a_second_row() -> None:
    (table,) = build_tables([make_record("a", 0.7, spec={"recipe": {"optimizer": {"lr": 0.5}}})])
    assert [row.recipe for row in table.rows] == ["full (changed: optimizer.lr=0.5)"]
    (table,) = build_tables([make_record("a", 0.7), make_record("b", 0.8, seed=1)])
    assert [row.recipe for row in table.rows] == ["full"]
    many = {
        "epochs": 1,
        "batch_size": 3,
        "clip_norm": 7.0,
        "precision": "bf16",
        "options": {"new": "\x1b[1m"},
    }
    (table,) = build_tables([make_record("a", 0.7, spec={"recipe": many})])
    (row,) = table.rows
    assert row.recipe.startswith("full (changed: batch_size=3, clip_norm=7.0, epochs=1, and ")
    (table,) = build_tables([make_record("a", 0.7, spec={"method": "absent"})])
    assert [row.recipe for row in table.rows] == ["full (preset not available here)"]


def test_runs_on_different_training_data_have_separate_rows() -> None:
    made = [
        make_record(f"r{seed}", 0.8, seed=seed, data={"fingerprint": f"{seed // 2}" * 64})
        for seed in range(4)
    ]
    (table,) = build_tables(made)
    assert [(row.recipe, len(row.records)) for row in table.rows] == [
        ("full, data 00000000", 2),
        ("full, data 11111111", 2),
    ]


def test_rows_without_significant_difference_share_a_rank(tmp_path: Path) -> None:
    for run_id, flipped in (("best", 0), ("near", 1), ("far", 30), ("farther", 31)):
        score_clips(tmp_path, run_id, flipped, method=run_id)
    (table,) = build_tables(read_results(tmp_path).records, read_results(tmp_path))
    assert [(row.method, row.rank) for row in table.rows] == [
        ("best", 1), ("near", 1), ("far", 3), ("farther", 3)
    ]  # fmt: skip
    (table,) = build_tables(read_results(tmp_path).records)
    assert [row.rank for row in table.rows] == [1, 2, 3, 4]
