"""CATR as in the paper: options and recipes."""

from __future__ import annotations

from typing import Any

import pytest
from avsbench_methods.catr import CATR
from avsbench_methods.catr.options import Options

from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.resolve import presets, resolve
from avsbench_harness.tasks import AVSS, MS3, TASKS

from .helpers_paper import build


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fusion_power": 1}, "fusion_power has no effect because fusion is sum"),
        ({"later_gates": "own_pair"}, "later_gates has no effect"),
        ({"gate": "none", "gate_channels": 2}, "gate_channels has no effect because gate is none"),
        ({"gate": "none", "gate_first_block": True}, "gate_first_block has no effect"),
        ({"gate_channels": 3}, "gate_channels: 3 does not divide the 64 channels"),
        ({"encoder": "none", "encoder_layers": 2}, "encoder_layers has no effect because encoder: none"),
        ({"audio": False}, "audio: false removes; use query_source: video, as in the paper's Table 4"),
        ({"query_source": "video", "queries": 9}, "because query_source: video has no learned queries"),
        (
            {"audio": False, "query_source": "video", "temporal_va_fusion": True},
            "because audio: false removes the audio",
        ),
        ({"decoding": "direct", "query_source": "video"}, "because decoding: direct has no queries"),
        ({"spatial_fusion": False, "audio_tokens": "frame"}, "audio_tokens has no effect"),
        ({"spatial_fusion": False, "temporal_av_fusion": False}, "use encoder: none"),
        ({"temporal_av_fusion": False, "va_keys": "fused"}, "va_keys has no effect"),
        (
            {"temporal_av_fusion": False, "temporal_va_fusion": False, "fusion": "sum"},
            "fusion has no effect because there is no temporal fusion",
        ),
        ({"decoding": "direct", "selection": "clip"}, "because decoding: direct has no queries"),
        ({"bce_input": "logit"}, "bce_input has no effect because bce_weight is 0"),
        ({"match_reference": 0, "match_reference_by": "probability"}, "match_reference_by has no effect"),
        ({"match_dice": 0, "dice_weight": 0, "dice": "sums"}, "dice has no effect"),
    ],
)
def test_options_that_contradict_or_have_no_effect_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Options.of({"dim": 64, **changes}, MS3, "paper")
    assert message in str(caught.value)


def test_one_mask_has_no_class() -> None:
    with pytest.raises(UsageError, match="one mask without a class, so it cannot do avss"):
        build(AVSS, decoding="direct")


def test_recipes_follow_the_paper() -> None:
    method = CATR()
    for preset in presets(method):
        for task in TASKS.values():
            recipe = resolve(method, task, "r50", variant="paper", preset=preset)
            Options.of(recipe.options, task, "paper")
    found = {name: resolve(method, task, "pvt", variant="paper") for name, task in TASKS.items()}
    assert {name: recipe.optimizer.lr for name, recipe in found.items()} == {
        "s4": 1e-4, "ms3": 1e-5, "avss": 1e-4,
    }  # fmt: skip
    assert {name: recipe.epochs for name, recipe in found.items()} == {"s4": 25, "ms3": 100, "avss": 100}
    assert {recipe.batch_size for recipe in found.values()} == {4}
    assert {recipe.optimizer.name for recipe in found.values()} == {"adam"}
    assert {(recipe.image_size, *recipe.options) for recipe in found.values()} == {(224,)}
