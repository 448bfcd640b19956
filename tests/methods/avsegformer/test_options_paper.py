"""AVSegFormer as in the paper: options and recipe."""

from __future__ import annotations

from typing import Any

import pytest
from avsbench_methods.avsegformer import AVSegFormer
from avsbench_methods.avsegformer.options import Options

from avsbench_harness.ablation.definition import read_ablations
from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.resolve import resolve
from avsbench_harness.recipe.schema import Recipe
from avsbench_harness.tasks import AVSS, S4, TASKS, Task

from .helpers_paper import build


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixer": "none", "mixer_residual": True}, "mixer_residual has no effect with mixer: none"),
        (
            {"mixer": "cross_attention", "mixer_sigmoid": True},
            "mixer_sigmoid has no effect with mixer: cross_attention",
        ),
        ({"generator_layers": 3}, "generator_layers has no effect with audio_queries: repeated"),
        (
            {"mask_channels": 64, "mask_reformer": "none"},
            "mask_channels has no effect with classifier: linear and mask_reformer: none",
        ),
        ({"mask_reformer": "none", "inter_weight": 1}, "inter_weight has no effect with mask_reformer: none"),
        ({"inter_weight": 0}, "'inter_weight' is 0"),
        ({"mixer": "channel"}, "'mixer' is 'channel'"),
    ],
)
def test_options_without_effect_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(**options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_each_variant_is_the_other_with_different_options() -> None:
    paper = Options.of({}, S4, "paper")
    released = Options.of({}, S4, "released")
    differ = {name for name in Options.model_fields if getattr(paper, name) != getattr(released, name)}
    values = {name: getattr(paper, name) for name in differ}
    assert Options.of(values, S4, "released") == paper
    losses = {variant: Options.of({}, AVSS, variant).loss for variant in AVSegFormer.variants}
    assert losses == {"released": "cross_entropy", "arxiv": "cross_entropy", "paper": "dice"}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("backbone", ["r50", "pvt"])
def test_recipe_follows_the_paper(task: Task, backbone: str) -> None:
    full = resolve(AVSegFormer(), task, backbone, variant="paper")
    _check_epochs(full, task)
    assert (full.optimizer.name, full.optimizer.lr, full.schedule.name) == ("adamw", 2e-5, "constant")
    assert full.train_fit == "squeeze"
    assert full.backbone.drop_path_rate == (0.1 if backbone == "pvt" else None)
    assert "released" in resolve(AVSegFormer(), task, backbone, variant="released").source
    Options.of(full.options, task, "paper")


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("backbone", ["r50", "pvt"])
def test_recipe_follows_the_first_public_code(task: Task, backbone: str) -> None:
    full = resolve(AVSegFormer(), task, backbone, variant="arxiv")
    _check_epochs(full, task)
    assert (full.optimizer.name, full.optimizer.lr, full.schedule.name) == ("adamw", 2e-5, "constant")
    assert full.train_fit == ("crop" if task is AVSS else "squeeze")
    assert full.backbone.drop_path_rate == (0.1 if backbone == "pvt" else None)
    Options.of(full.options, task, "arxiv")


def _check_epochs(full: Recipe, task: Task) -> None:
    """Frozen epochs and validation are those of the first public code, which the paper leaves open."""
    expected = {"s4": (30, 5, 1, 1), "ms3": (60, 10, 1, 1), "avss": (30, 0, 2, 11)}[task.name]
    validation = full.validation
    found = (full.epochs, full.backbone.freeze_epochs, validation.every, validation.first)
    assert found == expected
    assert (full.image_size, full.batch_size, full.protocols) == (224, 4, [])


def test_the_ablation_tables_start_from_the_code_that_printed_them() -> None:
    tables = read_ablations(AVSegFormer())
    assert {name: table.variant for name, table in tables.items()} == dict.fromkeys(
        ("table2a", "table2b", "table2c", "table2d"), "arxiv"
    )
