"""COMBO: loading published weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from avsbench_methods.combo.model import ComboModel
from avsbench_methods.combo.upstream import rename

from avsbench_harness.errors import UsageError
from avsbench_harness.files import read_json
from avsbench_harness.testing.seeded import seeded_state

from .helpers import build, without_memory


@pytest.fixture(scope="module")
def published(data: Path) -> dict[str, torch.Tensor]:
    return seeded_state(1, read_json(data / "combo" / "r50_s4.keys.json"))


@pytest.fixture(scope="module")
def released() -> ComboModel:
    return copy.deepcopy(without_memory("r50", "s4")).to_empty(device="cpu")


@pytest.mark.parametrize("task", ["s4", "avss"])
@pytest.mark.parametrize("backbone", ["r50", "pvt"])
def test_published_names_and_sizes(backbone: str, task: str, data: Path) -> None:
    model = without_memory(backbone, task)
    published = read_json(data / "combo" / f"{backbone}_s4.keys.json")
    renamed = [name for name in map(rename, published) if name is not None]
    assert sorted(renamed) == sorted(model.state_dict())
    expected = read_json(data / "combo" / "parameters.json")[f"{backbone}_{task}"]
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_weights_with_audio_encoder_and_data_parallel_prefix_load(
    released: ComboModel, published: dict[str, torch.Tensor]
) -> None:
    state = {"module." + name: value for name, value in published.items()}
    state |= {"module.audio_backbone.features.0.weight": torch.zeros(1), "module.pixel_mean": torch.zeros(3)}
    released.load_upstream(state)
    assert released.backbone.maskige is not None
    for part, name in (
        (released.backbone.image, "backbone"),
        (released.backbone.maskige, "pre_sam_backbone"),
    ):
        assert torch.equal(part.body.layer2[1].conv2.weight, published[f"{name}.res3.1.conv2.weight"])
        assert torch.equal(part.body.bn1.running_var, published[f"{name}.stem.conv1.norm.running_var"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sem_seg_head.predictor.decoder_norm.bias": None}, r"1 missing \(decoder\.norm\.bias\)"),
        ({"sem_seg_head.new.weight": torch.zeros(1)}, r"1 unknown \(sem_seg_head\.new\.weight\)"),
        (
            {"sem_seg_head.predictor.class_embed.bias": torch.zeros(72)},
            r"s4 with r50: 1 of the wrong shape \(sem_seg_head\.predictor\.class_embed",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    released: ComboModel, published: dict[str, torch.Tensor], change: dict[str, Any], message: str
) -> None:
    state = {name: value for name, value in {**published, **change}.items() if value is not None}
    with pytest.raises(UsageError, match=message):
        released.load_upstream(state)


def test_backbones_without_published_weights_are_refused() -> None:
    with pytest.raises(UsageError, match="no published weights with the backbone resnet10t"):
        build().load_upstream({})
