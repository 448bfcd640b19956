"""TPAVI as released: options, recipes and model card."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from avsbench_methods.tpavi import TPAVI
from avsbench_methods.tpavi.options import Options

from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.resolve import presets, resolve
from avsbench_harness.tasks import AVSS, MS3, S4, TASKS, Task


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": 10}, "Unknown key 'windows' in the options of tpavi. Did you mean 'window'?"),
        ({"dim": 20}, "'dim' is 20"),
        ({"window": 0}, "'window' is 0"),
        ({"avm": "va"}, "'avm' is 'va'"),
        ({"avm": "av", "avm_stages": []}, "'avm_stages' is []"),
        ({"avm": "av", "avm_stages": [0]}, "'avm_stages.0' is 0"),
        ({"avm": "av", "avm_weight": -0.1}, "'avm_weight' is -0.1"),
        ({"drop_path_rate": 1}, "'drop_path_rate' is 1"),
        ({"avm_weight": 0.5}, "avm_weight has no effect without a matching loss (avm: none)"),
        ({"avm": "av", "vv_self_distance": 5}, "vv_self_distance has no effect with avm: av"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Options.of(options, S4, "released")
    assert message in str(caught.value)


def test_variant_and_pool_without_effect_are_refused() -> None:
    with pytest.raises(UsageError, match="avm_pool has no effect on avss"):
        Options.of({"avm_pool": "logits"}, AVSS, "released")
    with pytest.raises(UsageError, match="variant of tpavi 'papers'"):
        TPAVI().build(S4, "r50", variant="papers")


def test_defaults_are_the_released_configuration() -> None:
    names = ("avm", "avm_distance", "avm_normalise", "avm_hard_mask", "avm_pool", "avm_sum", "audio_bias")
    released = {
        task: tuple(getattr(Options.of({}, TASKS[task], "released"), name) for name in names)
        for task in TASKS
    }
    assert released == {
        "s4": ("none", "cosine", True, True, "probabilities", False, True),
        "ms3": ("av", "kl", False, False, "logits", True, True),
        "avss": ("av", "kl", False, False, "logits", False, False),
    }
    shared = Options.of({}, MS3, "released")
    assert (shared.dim, shared.window, shared.inplace_relu, shared.avm_weight) == (256, 5, True, 0.5)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("backbone", ["r50", "pvt"])
def test_recipes_are_valid_and_follow_the_release(task: Task, backbone: str) -> None:
    method = TPAVI()
    assert set(presets(method)) == {"full", "mini", "smoke"}
    for preset in presets(method):
        recipe = resolve(method, task, backbone, preset=preset)
        assert recipe.image_size % 32 == 0
        Options.of(recipe.options, task, "released")
    full = resolve(method, task, backbone)
    assert (full.image_size, full.batch_size, full.epochs) == (
        224,
        4,
        {"s4": 15, "ms3": 30, "avss": 60}[task.name],
    )
    assert full.train_fit == ("crop" if task is AVSS else "squeeze")
    assert (full.optimizer.name, full.optimizer.lr, full.optimizer.weight_decay) == ("adam", 1e-4, 0)
    assert (full.schedule.name, full.backbone.freeze_epochs, full.clip_norm) == ("constant", 0, None)
    assert full.backbone.drop_path_rate == (0.1 if backbone == "pvt" else None)


def test_the_model_card_names_every_option() -> None:
    card = TPAVI().card()
    assert [name for name in Options.model_fields if f"`{name}`" not in card] == []
    recipes = yaml.safe_load((TPAVI().folder / "recipes.yaml").read_text())
    assert [name for name in recipes if f"`{name}`" not in card] == []
