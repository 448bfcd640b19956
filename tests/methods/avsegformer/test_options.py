"""AVSegFormer as released: options, recipes and model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from avsbench_methods.avsegformer import AVSegFormer
from avsbench_methods.avsegformer.options import Options

from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.resolve import presets, resolve
from avsbench_harness.tasks import AVSS, S4, TASKS, Task

from .helpers import build


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"querys": 10}, "Unknown key 'querys' in the options of avsegformer. Did you mean 'queries'?"),
        ({"dim": 48}, "'dim' is 48"),
        ({"queries": 0}, "'queries' is 0"),
        ({"encoder_layers": 1.5}, "'encoder_layers' is 1.5"),
        ({"dropout": 1.0}, "'dropout' is 1.0"),
        ({"mix_weight": -0.1}, "'mix_weight' is -0.1"),
        ({"mix_weight": float("inf")}, "'mix_weight' is inf"),
        ({"loss": "focal"}, "'loss' is 'focal'"),
        ({"drop_path_rate": 1}, "'drop_path_rate' is 1"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(**options)
    assert message in str(caught.value)


def test_losses_of_other_tasks_and_unknown_variants_are_refused() -> None:
    with pytest.raises(UsageError, match="loss is 'bce', but avss is trained with dice or cross_entropy"):
        build(AVSS, loss="bce")
    with pytest.raises(UsageError, match="loss is 'cross_entropy', but s4 is trained with dice or bce"):
        build(loss="cross_entropy")
    with pytest.raises(UsageError, match="variant of avsegformer 'papers'"):
        AVSegFormer().build(S4, "r50", variant="papers")


def test_defaults_are_the_released_configuration() -> None:
    released = Options()
    assert (released.queries, released.dim, released.ffn_dim, released.dropout) == (300, 256, 2048, 0.1)
    assert (released.encoder_layers, released.decoder_layers, released.generator_layers) == (6, 6, 6)
    assert (released.loss, released.mix_weight, released.learnable_queries) == ("dice", 0.1, True)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("backbone", ["r50", "pvt"])
def test_recipes_are_valid_and_follow_the_release(task: Task, backbone: str) -> None:
    method = AVSegFormer()
    assert set(presets(method)) == {"full", "mini", "smoke"}
    for preset in presets(method):
        recipe = resolve(method, task, backbone, preset=preset)
        assert recipe.image_size % 32 == 0
        Options.of(recipe.options, task, "released")
    full = resolve(method, task, backbone)
    sizes = {"s4": (512, 30, 5, 2), "ms3": (512, 60, 10, 2), "avss": (224, 30, 0, 4)}
    assert (full.image_size, full.epochs, full.backbone.freeze_epochs, full.batch_size) == sizes[task.name]
    assert full.train_fit == ("crop" if task is AVSS else "squeeze")
    assert (full.optimizer.lr, full.schedule.name, full.clip_norm) == (2e-5, "constant", None)
    assert full.backbone.drop_path_rate == (0.1 if backbone == "pvt" else None)
    assert full.protocols == ([] if task is AVSS else ["avsegformer"])
    # The published loop counts epochs from 0 and starts at epoch 10.
    assert (full.validation.every, full.validation.first) == ((2, 11) if task is AVSS else (1, 1))


def test_the_model_card_names_every_option(avsegformer_data: Path) -> None:
    card = AVSegFormer().card()
    assert [name for name in Options.model_fields if f"`{name}`" not in card] == []
    recipes = yaml.safe_load((AVSegFormer().folder / "recipes.yaml").read_text())
    assert [name for name in recipes if f"`{name}`" not in card] == []
