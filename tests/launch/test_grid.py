"""Grid files, also those in ``benchmarks/``."""

from __future__ import annotations

from pathlib import Path

import pytest

from avsbench_harness.ablation.definition import get_ablation
from avsbench_harness.errors import UsageError
from avsbench_harness.launch.grid import Grid, parse_seeds, read_grid
from avsbench_harness.method import get_method
from avsbench_harness.recipe.resolve import assignments, resolve
from avsbench_harness.tasks import get_task

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("text", "seeds"), [("0..2", [0, 1, 2]), ("3..3", [3]), ("4", [4]), ("0, 2,5", [0, 2, 5])]
)
def test_seeds_as_ranges_and_lists(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "2..0", "a", "1..", "-1", "1,,2"])
def test_malformed_seeds_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"0\.\.2 or 0,1,2"):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "either the key method or the key ablations"),
        ({"method": "a", "ablations": "a/table1"}, "either the key method or the key ablations"),
        ({"ablations": "a/table1", "variant": "paper"}, "determine variant"),
    ],
)
def test_grids_are_of_methods_or_of_ablation_tables(keys: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Grid.parse(keys, "grid")


def test_grids_are_read_from_yaml_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("method: [a, b]\nseeds: 0..1\nset: {optimizer.lr: 1.0e-3}\n")
    grid = read_grid(path)
    assert (grid.method, grid.seeds, grid.task) == (["a", "b"], [0, 1], ["s4"])
    path.write_text("method: a\nbackbones: r50\n")
    with pytest.raises(UsageError, match=r"Unknown key 'backbones' in .*grid\.yaml.*'backbone'"):
        read_grid(path)


def test_grids_need_a_method() -> None:
    with pytest.raises(UsageError, match="method"):
        Grid.parse({}, "nothing")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": "0..99999999999"}, "Seeds are given as"),
        ({"seeds": "²"}, "Seeds are given as"),
        ({"seeds": [2**64 - 1]}, "'seeds.0' is 18446744073709551615, but"),
        ({"seeds": True}, "'seeds.0' is True, but"),
        ({"seeds": "0..9999", "task": ["s4", "ms3"]}, "20000 runs, and at most 10000"),
        ({"set": {"optimizer.lr": float("inf")}}, "'set' is .*, but it has inf"),
    ],
)
def test_unusable_grids_are_one_sentence(grid, changes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        grid(**changes)


def test_the_benchmark_has_all_methods_tasks_and_three_seeds() -> None:
    grid = read_grid(BENCHMARKS / "mini.yaml")
    assert grid.method == ["aqformer", "avsegformer", "catr", "combo", "qdformer", "tpavi"]
    assert (grid.task, grid.seeds, grid.backbone) == (["s4", "ms3", "avss"], [0, 1, 2], ["lite0"])
    for method in map(get_method, grid.method):
        for task in map(get_task, grid.task):
            recipe = resolve(method, task, "lite0", preset=str(grid.preset))
            assert recipe.backbone.cache
            method.options.of(recipe.options, task, method.default_variant(task.name))


def test_every_row_of_the_benchmarks_ablations_is_valid() -> None:
    grid = read_grid(BENCHMARKS / "ablations.yaml")
    assert len(grid.ablations) == 5
    for name in grid.ablations:
        method, ablation = get_ablation(name)
        task = get_task(grid.task[0])
        for row in ablation.rows_of(task.name):
            changes = assignments({**ablation.set, **row.set})
            recipe = resolve(
                method, task, "lite0", variant=ablation.variant, preset=str(grid.preset), assignments=changes
            )
            method.options.of(recipe.options, task, ablation.variant)
