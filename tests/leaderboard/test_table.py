from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.leaderboard.page import (
    REPORTED,
    is_stale,
    render,
    to_csv,
    to_latex,
    to_markdown,
    write_leaderboard,
)
from avsbench_harness.leaderboard.table import COLUMNS, tables, to_json
from avsbench_harness.leaderboard.validate import faults
from avsbench_harness.results.record import (
    CostEntry,
    DataEntry,
    EnvironmentEntry,
    Record,
    ScoreEntry,
    TrainingEntry,
    classes_file,
    clips_file,
    read_record,
    read_records,
    write_failure,
    write_record,
)
from avsbench_harness.scoring import Scores, score_object, score_semantic

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
        **{
            "scores": [score], "submission_sha256": "0" * 64, "environment": ENVIRONMENT, **values, **changes,
        },
        run_id=run_id,
        data=DataEntry(**data),
    )  # fmt: skip


def lines(page: str, start: str) -> list[str]:
    """The lines of the measured part that start so."""
    return [line for line in page.split(REPORTED)[0].splitlines() if line.startswith(start)]


def scored(folder: Path, run_id: str, flipped: int, **changes: Any) -> Record:
    """A record of a real scoring of forty clips, the masks of ``flipped`` of which are wrong."""
    masks = np.zeros((40, 1, 8, 8), np.uint8)
    masks[:, :, :4] = 1
    codes = masks * 255
    codes[:flipped] = 255 - codes[:flipped]
    scores = score_object(codes, masks)
    entry = ScoreEntry(
        protocol=scores.protocol, main=list(scores.main), metrics=scores.metrics,
        intervals=scores.intervals, clips=scores.n,
    )  # fmt: skip
    made = record(run_id, None, scores=[entry], spec=None, **changes)
    write_record(folder / f"{run_id}.json", made, scores)
    return made


def test_columns_are_metrics_of_the_canonical_protocols() -> None:
    masks = np.ones((1, 5, 8, 8), np.uint8)
    for scores in (score_object(masks * 255, masks), score_semantic(masks, masks)):
        assert {metric for metric, _ in COLUMNS[scores.protocol]} <= set(scores.metrics)


def test_rows_are_ranked_and_link_their_records() -> None:
    page = to_markdown([record("a", 0.7, method="catr"), record("b", 0.8)])
    rows = [line for line in lines(page, "| ") if "](" in line]
    assert rows == [
        "| 1 | combo (released) | pvt | full | 80.00 (79.00-81.00) | 90.00 | "
        "J 84.7, F 91.9 (COMBO Table 1) | 1 | n/a | n/a | n/a | n/a | 2026-01-02 | [s0](b.json) |",
        "| 2 | catr (released) | pvt | full | 70.00 (69.00-71.00) | 90.00 | "
        "J 81.4, F 89.6 (CATR Table 1); J 84.4, F 91.3 (CATR Table 1, supplementary labels); "
        "J 81.4, F 89.6 (COMBO Table 1) | 1 | n/a | n/a | n/a | n/a | 2026-01-02 | [s0](a.json) |",
    ]
    assert "Protocol `object/1`, ground truth `ffffffffffff`" in page


def test_seeds_make_one_row_with_mean_and_deviation() -> None:
    page = to_markdown([record(f"r{seed}", 0.7 + 0.1 * seed, seed=seed) for seed in range(3)])
    (row,) = lines(page, "| 1 | combo")
    assert "| 80.00 ± 10.00 | 90.00 ± 0.00 |" in row
    assert "| 3 | n/a" in row
    assert "[s0](r0.json) [s1](r1.json) [s2](r2.json)" in row


def test_recipes_of_one_name_stay_apart() -> None:
    made = [record("a", 0.7), record("b", 0.8, spec={"recipe": {"lr": 2}})]
    (table,) = tables(made)
    assert len(table.rows) == 2
    assert all(row.recipe.startswith("full ") for row in table.rows)


def test_seeds_of_other_training_data_are_no_seeds() -> None:
    made = [
        record(f"r{seed}", 0.8, seed=seed, data={"fingerprint": f"{seed // 2}" * 64}) for seed in range(4)
    ]
    (table,) = tables(made)
    assert [(row.recipe, len(row.records)) for row in table.rows] == [
        ("full, data 00000000", 2),
        ("full, data 11111111", 2),
    ]


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
    assert page.index("(semantic)") < page.index("# Synthetic benchmarks") < page.index(": synthetic, test")
    assert [table["synthetic"] for table in to_json(tables(made))] == [False] * 4 + [True]


def test_nothing_vanishes_where_a_number_is_missing() -> None:
    page = to_markdown([record("a", None, variant=None, backbone=None, seed=None, spec=None, preset=None)])
    (row,) = lines(page, "| 1 | combo")
    assert "| n/a (not stated) | submitted | n/a (not defined on this split) | 90.00 |" in row
    assert "[record](a.json)" in row


def test_text_from_records_cannot_break_the_table() -> None:
    page = to_markdown([record("a", 0.5, method="x|y<script>", backbone="a\nb")])
    (row,) = lines(page, "| 1 | x")
    assert row.startswith(r"| 1 | x\|y\<script\> (released) | a b |")


def test_no_field_of_a_record_can_break_the_page() -> None:
    data = {"split": "te\n|st", "solution": "`<b>`"}
    evil = record("r.json) | <i>\n](x", 0.5, created="<b>|\n2026", data=data)
    page = to_markdown([evil]).split(REPORTED)[0]
    assert "te \\|st" in page
    assert "[s0](r.json%29%20%7C%20%3Ci%3E%0A%5D%28x.json)" in page
    assert "<b>" not in page.replace("\\<b\\>", "")
    assert "<i>" not in page


def test_an_empty_page_says_what_to_do(tmp_path: Path) -> None:
    assert "`avsb run` makes one" in write_leaderboard(tmp_path).read_text()


def test_records_are_written_once_with_their_clips(tmp_path: Path) -> None:
    made = scored(tmp_path, "a", 1)
    assert read_record(tmp_path / "a.json") == made
    assert read_records(tmp_path) == [made]
    table = pd.read_csv(clips_file(tmp_path / "a.json"))
    assert list(table["J"]) == [0.0] + [1.0] * 39
    with pytest.raises(UsageError, match="records are immutable"):
        scored(tmp_path, "a", 2)
    assert read_record(tmp_path / "a.json") == made


def test_a_failed_run_gives_way_to_a_scored_one_and_never_replaces_it(tmp_path: Path) -> None:
    failed = record("a", None, status="failed", reason="out | of memory", scores=[], submission_sha256=None)
    write_failure(tmp_path / "a.json", failed)
    page = to_markdown(read_records(tmp_path))
    assert r"- a: n/a (failed: out \| of memory)" in page
    assert "no records yet" not in page
    made = scored(tmp_path, "a", 0)
    write_failure(tmp_path / "a.json", failed)
    assert read_record(tmp_path / "a.json") == made


def test_failed_runs_stand_in_the_table_of_their_data() -> None:
    data = {"fingerprint": "d" * 64}
    failed = record(
        "b", None, method="catr", status="failed", reason="no <memory>", scores=[],
        data={**data, "solution": None},
    )  # fmt: skip
    page = to_markdown([record("a", 0.5, data=data), failed])
    (row,) = lines(page, "| n/a | catr")
    assert r"n/a (failed: no \<memory\>)" in row
    assert "Failed runs" not in page


def test_rows_that_do_not_differ_share_a_rank(tmp_path: Path) -> None:
    for run_id, flipped in (("best", 0), ("near", 1), ("far", 30), ("farther", 31)):
        scored(tmp_path, run_id, flipped, method=run_id)
    (table,) = tables(read_records(tmp_path), tmp_path)
    assert [(row.method, row.rank) for row in table.rows] == [
        ("best", 1), ("near", 1), ("far", 3), ("farther", 3)
    ]  # fmt: skip
    (table,) = tables(read_records(tmp_path))
    assert [row.rank for row in table.rows] == [1, 2, 3, 4]


def test_parts_and_further_protocols_are_shown(tmp_path: Path) -> None:
    made = record("a", 0.5)
    private = made.scores[0].model_copy(update={"part": "private", "metrics": {"J": 0.4, "F": 0.3}})
    davis = made.scores[0].model_copy(update={"protocol": "davis", "metrics": {"J&F": 0.61}})
    page = to_markdown([made.model_copy(update={"scores": [*made.scores, private, davis]})])
    assert len(lines(page, "## ")) == 2
    assert "test, private clips" in page
    assert "| J&F (davis) |" in page
    assert "| 61.00 |" in page


def test_cost_and_speed_of_the_newest_run_are_shown() -> None:
    training = TrainingEntry(
        steps=1, selected_step=1, validations=[], seconds=1, weights_sha256="0", clips_per_second=3.25,
        memory_gib=1.04,
    )  # fmt: skip
    page = to_markdown(
        [record("a", 0.5, training=training, cost=CostEntry(parameters=7_500_000, gmacs=12.34))]
    )
    assert "| 1 | 7.5 | 12.3 | 3.25 | 1.0 |" in page


def test_a_page_is_stale_when_the_records_change(tmp_path: Path) -> None:
    assert is_stale(tmp_path)
    write_leaderboard(tmp_path)
    assert not is_stale(tmp_path)
    scored(tmp_path, "a", 1)
    assert is_stale(tmp_path)
    write_leaderboard(tmp_path)
    assert write_leaderboard(tmp_path).read_text() == render(tmp_path)


def test_backbones_can_be_chosen(tmp_path: Path) -> None:
    scored(tmp_path, "a", 1, backbone="pvt")
    scored(tmp_path, "b", 1, backbone="r50")
    page = render(tmp_path, "r50")
    assert "(b.json)" in page
    assert "(a.json)" not in page
    assert "| combo: COMBO (ours) | r50 |" in page
    assert "| combo: COMBO (ours) | pvt |" not in page
    with pytest.raises(UsageError, match=r"Unknown backbone of the records 'r5'. Did you mean 'r50'"):
        render(tmp_path, "r5")


def test_exports_hold_the_numbers_and_escape_the_names(tmp_path: Path) -> None:
    scored(tmp_path, "a", 1, method="a_b&c")
    made = tables(read_records(tmp_path), tmp_path)
    frame = pd.read_csv(io.StringIO(to_csv(made)))
    assert list(frame["metric"]) == ["J", "F"]
    assert frame["mean"][0] == pytest.approx(39 / 40)
    latex = to_latex(made)
    assert r"1 & a\_b\&c (released) & pvt & full & 97.50 & 98.91 \\" in latex
    assert latex.count(r"\begin{tabular}{rlllrr}") == 1


def test_validation_finds_what_was_changed(tmp_path: Path) -> None:
    scored(tmp_path, "a", 1)
    assert faults(tmp_path) == (1, [])
    path = clips_file(tmp_path / "a.json")
    text = path.read_text().splitlines()
    path.write_text("\n".join([text[0], *text[2:]]) + "\n")
    (fault,) = faults(tmp_path)[1]
    assert "40 clips were scored, and the table has 39" in fault
    path.write_text("\n".join(text).replace("\n1,1,1,", "\n1,1,0.5,", 1) + "\n")
    (fault,) = faults(tmp_path)[1]
    assert "and the table of clips gives" in fault
    path.unlink()
    (fault,) = faults(tmp_path)[1]
    assert "missing or damaged" in fault


def test_validation_reads_names_hashes_and_failures(tmp_path: Path) -> None:
    scored(tmp_path, "a", 1)
    for end in (".json", ".clips.csv"):
        (tmp_path / f"a{end}").rename(tmp_path / f"c{end}")
    (fault,) = faults(tmp_path)[1]
    assert "is of run a" in fault
    broken = record("c", None, status="failed", scores=[], submission_sha256=None, spec=None)
    (tmp_path / "c.json").unlink()
    write_failure(tmp_path / "c.json", broken)
    (fault,) = faults(tmp_path)[1]
    assert "no reason" in fault


def semantic(seed: int) -> Scores:
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, 4, (6, 2, 8, 8)).astype(np.uint8)
    labels = np.where(draw.random(truth.shape) < 0.7, truth, 0).astype(np.uint8)
    return score_semantic(labels, truth)


def test_the_tables_of_avss_add_up_to_its_metrics(tmp_path: Path) -> None:
    scores = semantic(0)
    entry = ScoreEntry(
        protocol=scores.protocol, main=list(scores.main), metrics=scores.metrics,
        intervals=scores.intervals, clips=scores.n,
    )  # fmt: skip
    write_record(tmp_path / "a.json", record("a", None, task="avss", scores=[entry], spec=None), scores)
    assert faults(tmp_path) == (1, [])
    table = pd.read_csv(classes_file(tmp_path / "a.json"))
    assert set(table["class"]) == {0, 1, 2, 3}
    assert table["frames"].sum() == scores.tally.sums[:, 142:].sum()


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
    with pytest.raises(MissingDataError, match=r"Cannot read .*none.json: No such file"):
        read_record(tmp_path / "none.json")


def test_the_committed_page_is_that_of_the_committed_records() -> None:
    folder = Path(__file__).parents[2] / "results"
    assert (folder / "LEADERBOARD.md").read_text(encoding="utf-8") == render(folder)
