"""CATR: loading published weights."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from avsbench_methods.catr import CATR
from avsbench_methods.catr.model import CATRModel
from avsbench_methods.catr.upstream import rename

from avsbench_harness.errors import UsageError
from avsbench_harness.files import read_json
from avsbench_harness.tasks import S4

from .helpers import build

KEYS = Path(__file__).parents[2] / "fixtures" / "catr" / "pvt.keys.json"


@functools.cache
def without_memory(backbone: str) -> CATRModel:
    """Return the released network on the meta device."""
    with torch.device("meta"):
        return CATR().build(S4, backbone, variant="released")  # type: ignore[return-value]


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """A state dict of the published names and shapes; every entry has a different value."""
    shapes = read_json(KEYS)
    return {
        name: torch.tensor(float(i)).expand(tuple(shape)) for i, (name, shape) in enumerate(shapes.items())
    }


@pytest.fixture(scope="module")
def released() -> CATRModel:
    return copy.deepcopy(without_memory("pvt")).to_empty(device="cpu")


def test_published_names_and_sizes() -> None:
    model = without_memory("pvt")
    published = read_json(KEYS)
    renamed = [name for name in map(rename, published) if name is not None]
    assert sorted(renamed) == sorted(model.state_dict())
    # The published count without VGGish, minus weights without gradient.
    assert sum(parameter.numel() for parameter in model.parameters()) == 118_599_462 - 11_931_520


def test_r50_can_be_built() -> None:
    assert without_memory("r50").backbone.channels == (256, 512, 1024, 2048)


def test_weights_with_audio_encoder_and_data_parallel_prefix_load(
    released: CATRModel, published: dict[str, torch.Tensor]
) -> None:
    state = {"module." + name: value for name, value in published.items() if not name.startswith("path1")}
    released.load_upstream({**state, "module.audio_backbone.features.0.weight": torch.zeros(1)})
    assert torch.equal(released.decoder.queries, published["obj_queries.weight"])
    assert torch.equal(
        released.temporal_encoder.layers[1].to_video.attention.in_proj.weight,
        published["transformer.temporal_encoder.layers.1.av_atten.multihead_attn.in_proj_weight"],
    )
    assert torch.equal(released.mask_feature.laterals[1].bias, published["spatial_decoder.adapter2.bias"])
    assert torch.equal(released.levels[0].convs[2].weight, published["conv2.conv2d_list.2.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"obj_queries.weight": None}, r"1 missing \(decoder\.queries\)"),
        ({"spatial_decoder.new.weight": torch.zeros(1)}, r"1 unknown \(spatial_decoder\.new\.weight\)"),
        (
            {"is_referred_head.weight": torch.zeros(72, 256)},
            r"catr for s4 with pvt: 1 of the wrong shape \(is_referred_head\.weight",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    released: CATRModel, published: dict[str, torch.Tensor], change: dict[str, Any], message: str
) -> None:
    state = {name: value for name, value in {**published, **change}.items() if value is not None}
    with pytest.raises(UsageError, match=message):
        released.load_upstream(state)


def test_backbones_without_published_weights_are_refused() -> None:
    with pytest.raises(UsageError, match="no published weights with the backbone resnet10t"):
        build().load_upstream({})
