"""COMBO as in the paper: options and recipe."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from avsbench_methods.combo import Combo
from avsbench_methods.combo.options import PAPER, Options

from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.resolve import resolve
from avsbench_harness.tasks import AVSS, MS3, S4, Task

from .helpers_paper import batch, build


@pytest.mark.parametrize(("task", "weight"), [(S4, 10), (MS3, 10), (AVSS, 5)], ids=["s4", "ms3", "avss"])
def test_consistency_has_the_weight_of_the_task(task: Task, weight: float) -> None:
    assert Options.of({}, task, "paper").consistency_weight == weight
    assert Options.of({}, task, "released").consistency_weight == 10
    assert Options.of({"consistency_weight": 20}, task, "paper").consistency_weight == 20


@pytest.mark.parametrize(
    ("task", "variant", "options", "name"),
    [
        (S4, "paper", {"normed_residual": True}, "normed_residual"),
        (S4, "paper", {"fusion": "none", "fusion_heads": 8}, "fusion_heads"),
        (S4, "paper", {"fusion": "visual", "attention_limit": 1.0}, "attention_limit"),
        (S4, "paper", {"fusion": "audio", "visual_softmax": "sounds"}, "visual_softmax"),
        (S4, "released", {"fusion": "visual", "fusion_overwrites": False}, "fusion_overwrites"),
        (S4, "released", {"use_maskige": False, "channel_weight": "linear"}, "channel_weight"),
        (AVSS, "paper", {"object_score": "softmax"}, "object_score"),
        (S4, "paper", {"consistency_weight": 0, "consistency_chunk": 5}, "consistency_chunk"),
    ],
)
def test_options_without_effect_are_refused(
    task: Task, variant: str, options: dict[str, Any], name: str
) -> None:
    with pytest.raises(
        UsageError, match=f"The option {name} has no effect (with|because|on) .*; leave it out"
    ):
        build(task, variant, **options)


def test_the_variants_are_the_same_network_with_other_options() -> None:
    released = {name: Options.model_fields[name].default for name in PAPER}
    without_effect = ("object_score", "fusion_overwrites")
    model = build(variant="paper", **{n: v for n, v in released.items() if n not in without_effect})
    model.load_state_dict(build(variant="released").state_dict())
    clips = batch(clips=2)
    with torch.no_grad():
        assert torch.equal(model(clips).mask_logits, build(variant="released")(clips).mask_logits)


@pytest.mark.parametrize("task", [S4, MS3, AVSS], ids=["s4", "ms3", "avss"])
def test_the_paper_recipe_is_valid(task: Task) -> None:
    for preset in ("full", "mini", "smoke"):
        recipe = resolve(Combo(), task, "r50", variant="paper", preset=preset)
        Options.of(recipe.options, task, "paper")
    full = resolve(Combo(), task, "r50", variant="paper")
    assert "paper" in full.source
    assert full.train_fit == "squeeze"
    assert full.iterations == (20_000 if task is MS3 else 90_000)
    assert (full.batch_size, full.optimizer.lr, full.optimizer.weight_decay) == (8, 1e-4, 0.05)
