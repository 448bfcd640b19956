"""TPAVI: loading published weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from avsbench_methods.tpavi import TPAVI
from avsbench_methods.tpavi.model import TPAVIModel
from avsbench_methods.tpavi.upstream import rename
from torch import Tensor

from avsbench_harness.errors import UsageError
from avsbench_harness.files import read_json
from avsbench_harness.tasks import S4
from avsbench_harness.testing.seeded import seeded_state

from .helpers import build, without_memory


def published_shapes(folder: Path, backbone: str) -> dict[str, list[int]]:
    return read_json(folder / f"{backbone}_s4.keys.json")


@pytest.fixture(scope="module")
def published(tpavi_data: Path) -> dict[str, Tensor]:
    shapes = published_shapes(tpavi_data, "r50")
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def released() -> TPAVIModel:
    with torch.device("meta"):
        model = TPAVI().build(S4, "r50", variant="released")
    return model.to_empty(device="cpu")  # type: ignore[return-value]


@pytest.mark.parametrize(("backbone", "parameters"), [("r50", 68_157_697), ("pvt", 100_140_417)])
def test_published_names_and_sizes(backbone: str, parameters: int, tpavi_data: Path) -> None:
    model = without_memory(backbone)
    renamed = [name for name in map(rename, published_shapes(tpavi_data, backbone)) if name is not None]
    assert sorted(renamed) == sorted(model.state_dict())
    # The published count without VGGish, minus unused modules: a unit of path4, the second branch of ResNet.
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert sum(parameter.numel() for parameter in model.interactions.parameters()) == 663_040


def test_avss_has_more_classes_and_no_bias_in_the_audio_projection() -> None:
    model = without_memory("r50", "avss")
    # The published 91,402,247 minus unused modules.
    assert sum(parameter.numel() for parameter in model.parameters()) == 91_402_247 - 23_243_264
    assert sum(parameter.numel() for parameter in model.interactions.parameters()) == 662_016


def test_weights_with_audio_encoder_and_data_parallel_prefix_load(
    released: TPAVIModel, published: dict[str, Tensor]
) -> None:
    names = ("resnet.layer3_1.0.conv1.weight", "tpavi_b2.W_z.0.weight", "path1.resConfUnit2.conv1.bias")
    drawn = seeded_state(1, {name: published[name].shape for name in names})
    state = {"module." + name: value for name, value in {**published, **drawn}.items()}
    released.load_upstream({**state, "module.audio_backbone.features.0.weight": torch.zeros(1)})
    assert torch.equal(released.backbone.body.layer3[0].conv1.weight, drawn[names[0]])
    assert torch.equal(released.interactions[1].out.weight, drawn[names[1]].flatten(1))
    assert torch.equal(released.decoder.blocks[0].unit.conv1.bias, drawn[names[2]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv4.conv2d_list.0.bias": None}, r"1 missing \(projections\.3\.convs\.0\.bias\)"),
        ({"path5.new.weight": torch.zeros(1)}, r"1 unknown \(path5\.new\.weight\)"),
        (
            {"output_conv.4.bias": torch.zeros(71)},
            r"tpavi for s4 with r50: 1 of the wrong shape \(output_conv\.4\.bias",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    released: TPAVIModel, published: dict[str, Tensor], change: dict[str, Any], message: str
) -> None:
    state = {name: value for name, value in {**published, **change}.items() if value is not None}
    with pytest.raises(UsageError, match=message):
        released.load_upstream(state)


def test_backbones_without_published_weights_are_refused() -> None:
    with pytest.raises(UsageError, match="no published weights with the backbone resnet10t"):
        build().load_upstream({})
