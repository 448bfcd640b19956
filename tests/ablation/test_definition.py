"""Definitions of ablation tables: complete with respect to the papers, and every row has an effect."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from avsbench_harness.ablation import definition
from avsbench_harness.ablation.definition import ablations, get_ablation
from avsbench_harness.errors import UsageError
from avsbench_harness.method import Entry, from_folder, methods
from avsbench_harness.recipe.resolve import assignments, resolve
from avsbench_harness.results.reported import reported_values
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


TASKS_OF_TABLES = [(name, task) for name, table in ablations().items() for task in table.tasks]


def test_all_tables_of_the_papers_are_defined() -> None:
    assert {name: (table.paper, table.table) for name, table in ablations().items()} == TABLES


@pytest.mark.parametrize("name", TABLES)
def test_rows_match_the_reported_rows(name: str) -> None:
    method, table = get_ablation(name)
    assert table.variant in method.variants
    reported = {
        (value.row, value.task)
        for value in reported_values()
        if (value.paper, value.table, value.method) == (table.paper, table.table, method.name) and value.task
    }
    ours = {(row.reported or row.name, task) for task in table.tasks for row in table.rows_of(task)}
    assert ours == reported


@pytest.mark.parametrize(("name", "task"), TASKS_OF_TABLES)
def test_every_row_changes_the_recipe(name: str, task: str) -> None:
    method, table = get_ablation(name)
    seen = []
    for row in table.rows_of(task):
        recipe = resolve(
            method, get_task(task), table.backbones[0], variant=table.variant,
            assignments=assignments({**table.set, **row.set}),
        )  # fmt: skip
        assert recipe not in seen, f"row '{row.name}' repeats another"
        seen.append(recipe)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "task"), TASKS_OF_TABLES)
def test_every_row_changes_the_model_or_the_training(name: str, task: str) -> None:
    """An option set to its default would change the recipe without any effect."""
    method, table = get_ablation(name)
    models = {}
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
        models[row.name] = (model.options, rest)
    full = models.pop(table.full(task).name)
    assert not [name for name, model in models.items() if model == full]


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
def test_invalid_tables_are_refused(tmp_path: Path, tiny: str, change, message: str) -> None:
    folder = tmp_path / "method"
    shutil.copytree(tiny, folder)
    (folder / "ablations.yaml").write_text(TABLE.replace(*change))
    with pytest.raises(UsageError, match=message):
        get_ablation(f"{folder}/table1")


@pytest.mark.parametrize(
    ("name", "message"),
    [("combo", "ablation 'combo'"), ("combo/table9", "'table9'"), ("x/table1", "'x'")],
)
def test_unknown_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        get_ablation(name)


def test_a_damaged_file_of_one_method_does_not_hide_the_others(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "method"
    shutil.copytree(tiny, folder)
    (folder / "ablations.yaml").write_text("table: 1")
    broken = Entry("broken", "here", from_folder(folder))
    monkeypatch.setattr(definition, "methods", lambda: {**methods(), "broken": broken})
    assert ablations().keys() == TABLES.keys()
    assert "The ablations of broken are left out" in caplog.text
