"""AVSegFormer: loading published weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from avsbench_methods.avsegformer import AVSegFormer
from avsbench_methods.avsegformer.model import AVSegFormerModel
from avsbench_methods.avsegformer.upstream import rename, rename_with_reformer

from avsbench_harness.errors import UsageError
from avsbench_harness.files import read_json
from avsbench_harness.tasks import S4
from avsbench_harness.testing.seeded import seeded_state

from .helpers import build, without_memory


@pytest.fixture(scope="module")
def published(avsegformer_data: Path) -> dict[str, torch.Tensor]:
    return seeded_state(1, read_json(avsegformer_data / "r50_s4.keys.json"))


@pytest.fixture(scope="module")
def released() -> AVSegFormerModel:
    return AVSegFormer().build(S4, "r50", variant="released")  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("variant", "backbone", "parameters"),
    [
        ("released", "r50", 54_596_032),
        ("released", "pvt", 111_810_112),
        ("arxiv", "r50", 50_313_088),
        ("arxiv", "pvt", 107_527_168),
    ],
)
def test_published_names_and_sizes(
    variant: str, backbone: str, parameters: int, avsegformer_data: Path
) -> None:
    model = without_memory(backbone, variant)
    published = read_json(avsegformer_data / f"{backbone}_s4.keys.json")
    if variant == "arxiv":
        published = {name: size for name, size in published.items() if ".query_generator." not in name}
    names = map(rename_with_reformer if variant == "arxiv" else rename, published)
    assert sorted(name for name in names if name is not None) == sorted(model.state_dict())
    # The published count without VGGish and unused modules: ResNet's second branch; released: the reformer.
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_weights_with_audio_encoder_and_data_parallel_prefix_load(
    released: AVSegFormerModel, published: dict[str, torch.Tensor]
) -> None:
    state = {"module." + name: value for name, value in published.items() if not name.startswith("head.fpn")}
    released.load_upstream({**state, "module.vggish.features.0.weight": torch.zeros(1)})
    assert torch.equal(released.audio_projection.bias, published["audio_proj.bias"])
    assert torch.equal(
        released.backbone.body.layer3[0].conv1.weight, published["backbone.layer3_1.0.conv1.weight"]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head.level_embed": None}, r"1 missing \(encoder\.level_embedding\)"),
        ({"head.new.weight": torch.zeros(1)}, r"1 unknown \(head\.new\.weight\)"),
        (
            {"head.fc.4.weight": torch.zeros(71, 32, 1, 1)},
            r"s4 with r50: 1 of the wrong shape \(head\.fc\.4\.weight",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    released: AVSegFormerModel, published: dict[str, torch.Tensor], change: dict[str, Any], message: str
) -> None:
    state = {name: value for name, value in {**published, **change}.items() if value is not None}
    with pytest.raises(UsageError, match=message):
        released.load_upstream(state)


def test_weights_of_the_other_version_are_refused(published: dict[str, torch.Tensor]) -> None:
    state = {name: value.to("meta") for name, value in published.items()}
    first = {name: value for name, value in state.items() if ".query_generator." not in name}
    for variant, wrong, message in (
        ("released", first, "85 missing"), ("arxiv", state, "85 unknown"), ("paper", first, "mask_head"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            without_memory("r50", variant).load_upstream(wrong)


def test_backbones_without_published_weights_are_refused() -> None:
    with pytest.raises(UsageError, match="no published weights with the backbone resnet18"):
        build().load_upstream({})
