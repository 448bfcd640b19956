"""CATR as released: options, recipes and model card."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from avsbench_methods.catr import CATR
from avsbench_methods.catr.options import Options

from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.resolve import presets, resolve
from avsbench_harness.tasks import AVSS, S4

from .helpers import build


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"querys": 10}, "Unknown key 'querys' in the options of catr. Did you mean 'queries'?"),
        ({"dim": 96}, "'dim' is 96"),
        ({"encoder_layers": 1}, "'encoder_layers' is 1"),
        ({"audio_tokens": "all"}, "'audio_tokens' is 'all'"),
        ({"fusion_power": 3}, "'fusion_power' is 3"),
        ({"later_gates": "none"}, "'later_gates' is 'none'"),
        ({"silent_target": "loud"}, "'silent_target' is 'loud'"),
        ({"bce_input": "mask"}, "'bce_input' is 'mask'"),
        ({"dice_weight": float("nan")}, "'dice_weight' is nan"),
        ({"match_dice": -1}, "'match_dice' is -1"),
        ({"dropout": 1.0}, "'dropout' is 1.0"),
        ({"input_scale": 0}, "'input_scale' is 0"),
        ({"audio": False, "query_source": "audio"}, "use query_source: video"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(**options)
    assert message in str(caught.value)


def test_the_default_variant_on_avss_is_the_papers() -> None:
    assert [CATR().default_variant(task) for task in ("s4", "ms3", "avss")] == [
        "released",
        "released",
        "paper",
    ]
    default, paper = (resolve(CATR(), AVSS, "r50", variant=name) for name in (None, "paper"))
    assert default == paper


def test_avss_and_unknown_variants_are_refused() -> None:
    with pytest.raises(UsageError, match="no class head, so it cannot do avss; the variant paper can"):
        build(AVSS)
    with pytest.raises(UsageError, match="variant of catr 'later'"):
        CATR().build(S4, "pvt", variant="later")


def test_recipes_are_valid_and_follow_the_release() -> None:
    method = CATR()
    assert set(presets(method)) == {"full", "mini", "smoke"}
    for preset in presets(method):
        recipe = resolve(method, S4, "pvt", preset=preset)
        assert recipe.image_size % 32 == 0
        Options.of(recipe.options, S4, "released")
    full = resolve(method, S4, "pvt")
    assert (full.image_size, full.epochs, full.batch_size, full.clip_norm) == (224, 100, 2, 5.0)
    assert full.options == {"input_scale": 2}
    assert (full.optimizer.name, full.optimizer.lr, full.optimizer.weight_decay) == ("adam", 1e-5, 0)
    assert full.backbone.drop_path_rate == 0.1


def test_the_model_card_names_every_option() -> None:
    card = CATR().card()
    assert [name for name in Options.model_fields if f"`{name}`" not in card] == []
    recipes = yaml.safe_load((CATR().folder / "recipes.yaml").read_text())
    assert [name for name in recipes if f"`{name}`" not in card] == []
