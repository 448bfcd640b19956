from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from avsbench_harness.ablation import tables as tables
from avsbench_harness.errors import UsageError
from avsbench_harness.launch.ablate import Choice, grid, write_tables
from avsbench_harness.launch.execute import record_failure
from avsbench_harness.launch.sweep import cells
from avsbench_harness.method import get_method
from avsbench_harness.recipe.resolve import assignments, resolve
from avsbench_harness.results.record import (
    CostEntry,
    DataEntry,
    EnvironmentEntry,
    Record,
    ScoreEntry,
    write_record,
)
from avsbench_harness.results.reported import figures
from avsbench_harness.scoring import score_object
from avsbench_harness.tasks import get_task
from avsbench_harness.weights.meta import on_meta

#: The 18 ablation tables of the five papers.
TABLES = {
    **{f"catr/table{number}": ("CATR", f"Table {number}") for number in (3, 4, 5, 6)},
    **{f"combo/table{number}": ("COMBO", f"Table {number}") for number in (3, 4, 5, 6, 7)},
    "qdformer/table2": ("QDFormer", "Table 2"),
    **{f"aqformer/table2{letter}": ("AQFormer", f"Table 2{letter}") for letter in "abcd"},
    **{f"avsegformer/table2{letter}": ("AVSegFormer", f"Table 2{letter}") for letter in "abcd"},
}
EVERY = [(name, task) for name, table in tables.ablations().items() for task in table.tasks]


def test_every_table_of_the_papers_is_there() -> None:
    assert {name: (table.paper, table.table) for name, table in tables.ablations().items()} == TABLES


@pytest.mark.parametrize("name", TABLES)
def test_every_reported_row_has_its_row_and_the_other_way_round(name: str) -> None:
    method, table = tables.get_ablation(name)
    assert table.variant in method.variants
    reported = {
        (figure.row, figure.task)
        for figure in figures()
        if (figure.paper, figure.table, figure.method) == (table.paper, table.table, method.name)
        and figure.task
    }
    ours = {(row.reported or row.name, task) for task in table.tasks for row in table.rows_of(task)}
    assert ours == reported


@pytest.mark.parametrize(("name", "task"), EVERY)
def test_every_row_changes_the_recipe(name: str, task: str) -> None:
    method, table = tables.get_ablation(name)
    seen = []
    for row in table.rows_of(task):
        recipe = resolve(
            method, get_task(task), table.backbones[0], variant=table.variant,
            assignments=assignments({**table.set, **row.set}),
        )  # fmt: skip
        assert recipe not in seen, f"row '{row.name}' repeats another"
        seen.append(recipe)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "task"), EVERY)
def test_every_row_is_a_network_or_a_training_of_its_own(name: str, task: str) -> None:
    """An option that is set to its default would change the recipe, and nothing else."""
    method, table = tables.get_ablation(name)
    networks = {}
    for row in table.rows_of(task):
        recipe = resolve(
            method, get_task(task), table.backbones[0], variant=table.variant,
            assignments=assignments({**table.set, **row.set}),
        )  # fmt: skip
        model = on_meta(
            lambda recipe=recipe: method.build(
                get_task(task), table.backbones[0], variant=table.variant, **recipe.options
            )
        )
        rest = recipe.model_copy(update={"options": {}})
        networks[row.name] = (model.options, rest)
    full = networks.pop(table.full(task).name)
    assert not [name for name, network in networks.items() if network == full]


TABLE = """
table1:
  title: width
  paper: none
  table: Table 1
  tasks: [s4]
  backbones: [r50]
  rows: [{name: a, set: {options.width: 2}}, {name: b}]
"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("{name: b}", "{name: b, set: {clip_norm: 1}}"), "must change nothing"),
        (("name: b", "name: a"), "the same name"),
        (("title", "titel"), "Unknown key 'titel'.*'title'"),
        (("tasks: [s4]", "tasks: []"), "tasks"),
    ],
)
def test_tables_that_are_wrong_are_refused(tmp_path: Path, tiny: str, change, message: str) -> None:
    import shutil

    folder = tmp_path / "method"
    shutil.copytree(tiny, folder)
    (folder / "ablations.yaml").write_text(TABLE.replace(*change))
    with pytest.raises(UsageError, match=message):
        tables.get_ablation(f"{folder}/table1")


def test_names_that_are_unknown_are_refused(tiny: str) -> None:
    for name, message in (("combo", "ablation 'combo'"), ("combo/table9", "'table9'"), ("x/table1", "'x'")):
        with pytest.raises(UsageError, match=message):
            tables.get_ablation(name)
    with pytest.raises(UsageError, match="no row 'broad'"):
        grid(f"{tiny}/table1", Choice(rows=["broad"]))
    with pytest.raises(UsageError, match="change 'options.width' themselves"):
        grid(f"{tiny}/table1", Choice(changes={"options.width": 3}))


def test_rows_can_be_chosen_and_bring_the_full_method(tiny: str, real_s4: Path) -> None:
    asked = grid(f"{tiny}/table1", Choice(rows=["narrow"], data=real_s4, seeds=2))
    assert [row.name for row in asked.rows] == ["narrow", "default"]
    assert asked.seeds == [0, 1]


def record_of(cell, flipped: int, folder: Path, **changes) -> Record:
    """A record of the cell's run as if its predictions of twenty clips had been scored, ``flipped`` wrong."""
    masks = np.zeros((20, 1, 8, 8), np.uint8)
    masks[:, :, :4] = 1
    codes = masks * 255
    codes[:flipped] = 255 - codes[:flipped]
    scores = score_object(codes, masks)
    spec = cell.run.spec
    made = Record(
        run_id=cell.run.id, created="2026-01-02T03:04:05Z", method=spec.method, variant=spec.variant,
        backbone=spec.backbone, preset=spec.preset, task=spec.task, seed=spec.seed,
        data=DataEntry(name="real", split="test", synthetic=False, solution="f" * 64, fingerprint="d" * 64),
        scores=[
            ScoreEntry(protocol=scores.protocol, main=list(scores.main), metrics=scores.metrics,
                       intervals=scores.intervals, clips=scores.n)
        ],
        submission_sha256="0" * 64,
        environment=EnvironmentEntry(
            harness="0", python="3", platform="p", packages={}, device="cpu", threads=1, git=None
        ),
        spec=spec.model_dump(mode="json"), spec_hash=spec.hash,
    )  # fmt: skip
    made = made.model_copy(update=changes)
    write_record(folder / f"{cell.run.id}.json", made, scores)
    return made


def test_the_table_is_a_function_of_the_records(tiny: str, real_s4: Path, tmp_path: Path) -> None:
    """Whatever else lies in the folder, and whatever was changed alike in every row."""
    name = f"{tiny}/table1"
    results = tmp_path / "results"
    choice = Choice(data=real_s4, preset="smoke", seeds=2, changes={"iterations": 1})
    planned = cells(grid(name, choice), tmp_path, "cpu")
    wrong = {"narrow": 9, "default": 1, "wide | <b>": 2}
    for cell in planned:
        record_of(cell, wrong[cell.row] + cell.request.seed, results)
    other = cells(grid(name, dataclasses.replace(choice, changes={"iterations": 2})), tmp_path, "cpu")
    record_of(other[0], 0, results)  # of another training, without its full method
    page, csv = write_tables(name, results)
    text = page.read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line][1:]
    assert page == results / "ablations" / "tiny-table1.md"
    assert len(rows) == 3
    # 9 and 10 wrong of 20: J 0.55 and 0.5; F of a wrong clip is that of half the picture.
    assert rows[0].startswith("| narrow | 52.50 ± 3.54 | -40.00 (-")
    assert "| n/a (not in the paper) | - |" in rows[0]
    assert rows[1].startswith("| default | 92.50 ± 3.54 | full |")
    assert rows[2].startswith(r"| wide \| \<b\> | 87.50 ± 3.54 |")
    assert "| 2 | [s0](../" in rows[0]
    assert write_tables(name, results)[0].read_text() == text
    import pandas as pd

    frame = pd.read_csv(csv)
    narrow = frame[(frame["row"] == "narrow") & (frame["metric"] == "J")].iloc[0]
    assert narrow["mean"] == pytest.approx(0.525)
    assert narrow["difference"] == pytest.approx(-0.4)
    assert narrow["low"] < -0.4 < narrow["high"] < 0
    assert narrow["seeds"] == 2


def test_tables_of_other_trainings_are_told_apart(tiny: str, real_s4: Path, tmp_path: Path) -> None:
    name, results = f"{tiny}/table1", tmp_path / "results"
    for steps in (1, 2):
        choice = Choice(data=real_s4, preset="smoke", changes={"iterations": steps})
        for cell in cells(grid(name, choice), tmp_path, "cpu"):
            record_of(cell, steps, results)
    page, _ = write_tables(name, results)
    recipes = [line for line in page.read_text().splitlines() if line.startswith("Recipe `smoke ")]
    assert len(set(recipes)) == 2


def test_sizes_stand_beside_those_of_the_paper(real_s4: Path, tmp_path: Path) -> None:
    """combo/table4 has a column with the parameters of both rows."""
    choice = Choice(data=real_s4, preset="smoke", changes={"maskige": "felzenszwalb"})
    sizes = {"w. shared weights": 130_000_000, "w/o shared weights": 160_000_000}
    for cell in cells(grid("combo/table4", choice), tmp_path, "cpu"):
        record_of(cell, 1, tmp_path / "results", cost=CostEntry(parameters=sizes[cell.row], gmacs=1.0))
    page = write_tables("combo/table4", tmp_path / "results")[0].read_text()
    assert "| M parameters measured | M parameters reported |" in page
    assert "| 130.0 | 135.5 | 1 | [s0]" in page
    assert "| 160.0 | 158.9 | 1 | [s0]" in page


def test_failed_rows_say_why(tiny: str, real_s4: Path, tmp_path: Path) -> None:
    name, results = f"{tiny}/table1", tmp_path / "results"
    results.mkdir()
    for cell in cells(grid(name, Choice(data=real_s4, preset="smoke")), tmp_path, "cpu"):
        record_failure(cell.run, "out of | memory")
    page = write_tables(name, results)[0].read_text()
    assert r"| default | n/a (failed: out of \| memory) | full |" in page
    assert "ground truth `n/a`" in page


def test_a_table_without_records_says_how_to_make_them(tiny: str, tmp_path: Path) -> None:
    page, _ = write_tables(f"{tiny}/table1", tmp_path)
    assert "`avsb ablate run tiny/table1` makes them" in page.read_text()


def test_directions_are_compared_with_the_paper() -> None:
    """combo/table5, S4, r50: every other fusion is below the full one in J."""
    from avsbench_harness.results.paired import Gap

    method, table = tables.get_ablation("combo/table5")
    assert method is get_method("combo") or method.name == "combo"
    section = tables.Section("s4", "r50", "full", "avsbench", False, "f" * 64, ())
    row = next(row for row in table.rows if row.name == "w/o fusion")
    for gap, word in (
        (Gap(-0.02, (-0.03, -0.01)), "agrees"),
        (Gap(0.02, (0.01, 0.03)), "differs"),
        (Gap(0.02, (-0.01, 0.03)), "not significant"),
    ):
        assert tables.direction(table, section, tables.Measured(row, (), {"J": gap}), "J") == word
    assert tables.direction(table, section, tables.Measured(row, (), {"J": None}), "J") == ""


def test_equal_figures_have_no_direction() -> None:
    """combo/table7, S4: F is 90.1 with weights 5 and 10."""
    from avsbench_harness.results.paired import Gap

    _, table = tables.get_ablation("combo/table7")
    section = tables.Section("s4", "r50", "full", "avsbench", False, "f" * 64, ())
    row = next(row for row in table.rows_of("s4") if row.name == "5")
    measured = tables.Measured(row, (), {"F": Gap(0.02, (0.01, 0.03))})
    assert tables.direction(table, section, measured, "F") == "none in the paper"
