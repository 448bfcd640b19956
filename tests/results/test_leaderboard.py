from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from avsbench_harness.errors import UsageError
from avsbench_harness.results.leaderboard import COLUMNS, tables, to_json, to_markdown, write_leaderboard
from avsbench_harness.results.record import (
    DataEntry,
    EnvironmentEntry,
    Record,
    ScoreEntry,
    clips_file,
    read_record,
    read_records,
    write_record,
)
from avsbench_harness.scoring import score_object, score_semantic

ENVIRONMENT = EnvironmentEntry(
    harness="0", python="3", platform="p", packages={}, device="cpu", threads=1, git=None
)


def record(run_id: str, j: float | None, **changes: Any) -> Record:
    data = {"name": "avsbench", "split": "test", "synthetic": False, "solution": "f" * 64}
    data |= changes.pop("data", {})
    metrics = changes.pop("metrics", {"J": j, "F": 0.9})
    score = ScoreEntry(
        protocol=changes.pop("protocol", "object/1"),
        main=["J", "F"],
        metrics=metrics,
        intervals={"J": None if j is None else (j - 0.01, j + 0.01), "F": None},
        clips=740,
    )
    values: dict[str, Any] = {
        "method": "combo", "variant": "released", "backbone": "pvt", "preset": "full", "task": "s4",
        "seed": 0, "created": "2026-01-02T03:04:05Z",
        "spec": {"recipe": {"lr": 1}, "seed": changes.get("seed", 0)},
    }  # fmt: skip
    return Record(
        **{**values, **changes},
        run_id=run_id,
        data=DataEntry(**data),
        scores=[score],
        submission_sha256="0" * 64,
        environment=ENVIRONMENT,
    )


def lines(page: str, start: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith(start)]


def test_columns_are_metrics_of_the_canonical_protocols() -> None:
    masks = np.ones((1, 5, 8, 8), np.uint8)
    for scores in (score_object(masks * 255, masks), score_semantic(masks, masks)):
        assert {metric for metric, _ in COLUMNS[scores.protocol]} <= set(scores.metrics)


def test_rows_are_ranked_and_link_their_records() -> None:
    page = to_markdown([record("a", 0.7, method="catr"), record("b", 0.8)])
    rows = [line for line in lines(page, "| ") if "](" in line]
    assert rows == [
        "| combo (released) | pvt | full | 80.00 (79.00-81.00) | 90.00 | 1 | 2026-01-02 | [s0](b.json) |",
        "| catr (released) | pvt | full | 70.00 (69.00-71.00) | 90.00 | 1 | 2026-01-02 | [s0](a.json) |",
    ]
    assert "Protocol `object/1`, ground truth `ffffffffffff`" in page


def test_seeds_make_one_row_with_mean_and_deviation() -> None:
    page = to_markdown([record(f"r{seed}", 0.7 + 0.1 * seed, seed=seed) for seed in range(3)])
    (row,) = lines(page, "| combo")
    assert "| 80.00 ± 10.00 | 90.00 ± 0.00 | 3 |" in row
    assert "[s0](r0.json) [s1](r1.json) [s2](r2.json)" in row


def test_recipes_of_one_name_stay_apart() -> None:
    made = [record("a", 0.7), record("b", 0.8, spec={"recipe": {"lr": 2}})]
    (table,) = tables(made)
    assert len(table.rows) == 2
    assert all(row.recipe.startswith("full ") for row in table.rows)


def test_other_truths_protocols_tasks_and_synthetic_data_get_their_own_tables() -> None:
    made = [
        record("a", 0.7),
        record("b", 0.7, data={"solution": "e" * 64}),
        record("c", 0.7, task="ms3"),
        record("d", 0.7, data={"synthetic": True, "name": "synthetic"}),
        record(
            "e", None, task="avss", protocol="semantic/1", metrics={"mIoU": 0.3, "F": 0.4, "mIoU_object": 0.2}
        ),
    ]
    page = to_markdown(made)
    assert len(lines(page, "## ")) == 5
    assert page.index("(semantic)") < page.index("# Synthetic benchmarks") < page.index(", synthetic")
    assert [table["synthetic"] for table in to_json(made)] == [False] * 4 + [True]


def test_nothing_vanishes_where_a_number_is_missing() -> None:
    page = to_markdown([record("a", None, variant=None, backbone=None, seed=None, spec=None, preset=None)])
    (row,) = lines(page, "| combo")
    assert "| n/a (not stated) | submitted | n/a (not defined on this split) | 90.00 |" in row
    assert "[record](a.json)" in row


def test_text_from_records_cannot_break_the_table() -> None:
    page = to_markdown([record("a", 0.5, method="x|y<script>", backbone="a\nb")])
    (row,) = lines(page, "| x")
    assert row.startswith(r"| x\|y\<script\> (released) | a b |")


def test_an_empty_page_says_what_to_do(tmp_path: Path) -> None:
    assert "`avsb run` makes one" in write_leaderboard(tmp_path).read_text()


def test_records_are_written_once_with_their_clips(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    frame = pd.DataFrame({"clip": ["x", "y"], "J": [0.1, 1 / 3], "F": [0.2, None]})
    write_record(path, record("a", 0.5), frame)
    assert read_record(path) == record("a", 0.5)
    assert read_records(tmp_path) == [record("a", 0.5)]
    pd.testing.assert_frame_equal(pd.read_csv(clips_file(path)), frame)
    with pytest.raises(UsageError, match="records are immutable"):
        write_record(path, record("a", 0.6), frame)
    assert read_record(path) == record("a", 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [("[]", "is not a record"), ("{}", "'run_id'"), ("{", "is not valid JSON")],
)
def test_what_is_no_record_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_record(path)
    assert "b.json" in str(caught.value)


def test_the_committed_page_is_that_of_the_committed_records() -> None:
    folder = Path(__file__).parents[2] / "results"
    assert (folder / "LEADERBOARD.md").read_text(encoding="utf-8") == to_markdown(read_records(folder))
