"""COMBO as released: options, recipes and model card."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from avsbench_methods.combo import Combo
from avsbench_methods.combo.options import Options

from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.resolve import presets, resolve
from avsbench_harness.tasks import AVSS, MS3, S4, TASKS, Task

from .helpers import build


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"querys": 10}, "Unknown key 'querys' in the options of combo. Did you mean 'queries'?"),
        ({"dim": 48}, "'dim' is 48"),
        ({"queries": 0}, "'queries' is 0"),
        ({"audio_pairing": "none"}, "'audio_pairing' is 'none'"),
        ({"fusion_dropout": 1.0}, "'fusion_dropout' is 1.0"),
        ({"consistency_weight": float("inf")}, "'consistency_weight' is inf"),
        ({"consistency_chunk": 0}, "'consistency_chunk' is 0"),
        ({"shared_encoder": True, "use_maskige": False}, "shared_encoder has no effect"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(**options)
    assert message in str(caught.value)


def test_unknown_variants_are_refused() -> None:
    with pytest.raises(UsageError, match="variant of combo 'best'"):
        Combo().build(S4, "r50", variant="best")


def test_defaults_are_the_released_configuration() -> None:
    released = Options()
    assert (released.queries, released.dim, released.encoder_layers, released.decoder_layers) == (
        100,
        256,
        6,
        9,
    )
    assert (released.encoder_ffn_dim, released.ffn_dim, released.audio_mlp_dim) == (1024, 2048, 4096)
    assert (released.class_weight, released.mask_weight, released.dice_weight) == (2, 5, 5)
    assert (released.consistency_weight, released.consistency_chunk, released.no_object_weight) == (
        10,
        5,
        0.1,
    )
    assert (released.audio_pairing, released.visual_softmax, released.loss_points) == (
        "scrambled",
        "positions",
        12544,
    )


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("backbone", ["r50", "pvt"])
def test_recipes_are_valid_and_follow_the_release(task: Task, backbone: str) -> None:
    method = Combo()
    assert set(presets(method)) == {"full", "mini", "smoke"}
    for preset in presets(method):
        recipe = resolve(method, task, backbone, preset=preset)
        assert recipe.image_size % 32 == 0
        Options.of(recipe.options, task, "released")
    full = resolve(method, task, backbone)
    assert (full.image_size, full.batch_size, full.clip_norm) == (224, 8, 0.01)
    assert full.iterations == (20_000 if task is MS3 else 90_000)
    assert full.precision == ("fp16" if task is AVSS else "fp32")
    optimizer = full.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.weight_decay) == ("adamw", 1e-4, 0.05)
    assert (optimizer.backbone_lr_scale, full.schedule.name, full.schedule.power) == (0.1, "poly", 0.9)


def test_the_model_card_names_every_option() -> None:
    card = Combo().card()
    assert [name for name in Options.model_fields if f"`{name}`" not in card] == []
    recipes = yaml.safe_load((Combo().folder / "recipes.yaml").read_text())
    assert [name for name in recipes if f"`{name}`" not in card] == []
