"""AQFormer: options, recipes and model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from avsbench_methods.aqformer import AQFormer
from avsbench_methods.aqformer.options import Options

from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.resolve import resolve
from avsbench_harness.tasks import AVSS, MS3, S4, TASKS, Task

from .helpers import SMALL, TABLE_2, build

CARD = Path(__file__).parents[3] / "methods" / "aqformer" / "README.md"


def millions(task: Task, backbone: str) -> float:
    with torch.device("meta"):
        model = AQFormer().build(task, backbone, variant="paper")
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


def test_every_row_of_table_2_changes_the_network() -> None:
    networks = set()
    for name, changes in TABLE_2.items():
        with torch.device("meta"):
            built = build(**{**SMALL, "stages": 3, **changes})
        chosen = built.options
        networks.add(
            (chosen.queries, chosen.query_frames, chosen.abti, chosen.similarity_loss, chosen.stages)
        )
        assert len(built.interactions) == len(changes.get("abti", [1, 2, 3, 4])), name
        assert len(built.decoder.layers) == 3 * changes.get("stages", 3), name
    # basic = Audio Query, + AVSim = "-", and the full method ends each of 2b, 2c and 2d.
    assert len(networks) == len(TABLE_2) - 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"abti": [], "abti_dim": 64}, "abti_dim has no effect without abti"),
        ({"similarity_loss": False, "similarity_weight": 2.0}, "no effect without similarity_loss"),
        ({"abti": [], "remap": "softmax"}, "remap has no effect without abti"),
        ({"similarity_loss": False, "similarity_reduction": "sum"}, "no effect without similarity_loss"),
        ({"fusion_dim": 64}, "no effect without audio_softmax pixels"),
        ({"class_weight": 2.0}, "no effect without classes, which only avss has"),
        ({"heads": 7}, "heads of aqformer is 7, which does not divide dim 256"),
        ({"abti_dim": 100}, "heads of aqformer is 8, which does not divide abti_dim 100"),
        ({"abti": [1, 1]}, "no scale may be named twice"),
        ({"abti": [5]}, "'abti.0' is 5"),
        ({"query": "audio"}, "Unknown key 'query'.*queries"),
        ({"stages": 0}, "'stages' is 0"),
        ({"dim": 100}, "'dim' is 100"),
    ],
)
def test_invalid_options_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Options.of(values, MS3, "paper")


def test_literal_options_are_the_equations_as_printed() -> None:
    literal = Options.of({"literal": True}, MS3, "paper")
    assert (literal.output_norm, literal.remap, literal.similarity_reduction) == (False, "softmax", "sum")
    assert Options.of({"literal": True, "output_norm": True}, MS3, "paper").output_norm
    default = Options.of({}, MS3, "paper")
    assert (default.output_norm, default.remap, default.similarity_reduction) == (True, "peak", "mean")


def test_the_order_of_scales_does_not_matter() -> None:
    assert Options.of({"abti": [4, 1]}, MS3, "paper").abti == (1, 4)


@pytest.mark.parametrize(
    ("task", "backbone", "batch_size", "iterations", "lr"),
    [
        ("s4", "r50", 8, 20_000, 1.25e-4),
        ("s4", "pvt", 4, 40_000, 1.25e-4),
        ("ms3", "r50", 8, 2_000, 5e-4),
        ("ms3", "pvt", 4, 4_000, 5e-4),
    ],
)
def test_the_recipe_is_section_4_2(
    task: str, backbone: str, batch_size: int, iterations: int, lr: float
) -> None:
    recipe = resolve(AQFormer(), TASKS[task], backbone)
    assert recipe.iterations == iterations
    assert recipe.batch_size == batch_size
    assert recipe.optimizer.lr == lr
    assert recipe.optimizer.name == "adamw"
    assert recipe.optimizer.weight_decay == 0.05
    assert recipe.schedule.name == "poly"


def test_the_card_lists_every_option_and_every_row_of_table_2() -> None:
    card = CARD.read_text(encoding="utf-8")
    assert [name for name in Options.model_fields if f"`{name}`" not in card] == []
    for row in TABLE_2:
        table, _, label = row.partition(" ")
        assert f"| {table} | {label} |" in card, row


@pytest.mark.slow
def test_the_card_states_the_numbers_of_parameters() -> None:
    card = CARD.read_text(encoding="utf-8")
    for backbone in ("r50", "pvt", "swin_t"):
        assert f"{backbone} {millions(S4, backbone):.1f} M" in card
    assert round((millions(AVSS, "r50") - millions(S4, "r50")) * 1e6) == 17_990
    assert "17,990" in card
