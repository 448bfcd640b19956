"""AVSegFormer as in the paper: options and recipe."""

from __future__ import annotations

from typing import Any

import pytest
from avsbench_methods.avsegformer import AVSegFormer
from avsbench_methods.avsegformer.options import Options

from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.resolve import resolve
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
        ({"mask_channels": 64}, "mask_channels has no effect with classifier: linear"),
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
    assert Options.of({}, AVSS, "released").loss == "cross_entropy"
    assert Options.of({}, AVSS, "paper").loss == "dice"


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("backbone", ["r50", "pvt"])
def test_recipe_follows_the_paper(task: Task, backbone: str) -> None:
    full = resolve(AVSegFormer(), task, backbone, variant="paper")
    epochs = {"s4": 30, "ms3": 60, "avss": 30}
    assert (full.image_size, full.batch_size, full.epochs) == (224, 4, epochs[task.name])
    assert (full.optimizer.name, full.optimizer.lr, full.schedule.name) == ("adamw", 2e-5, "constant")
    assert (full.backbone.freeze_epochs, full.train_fit) == (0, "squeeze")
    assert full.backbone.drop_path_rate == (0.1 if backbone == "pvt" else None)
    assert "released" in resolve(AVSegFormer(), task, backbone, variant="released").source
    Options.of(full.options, task, "paper")
