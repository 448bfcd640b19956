"""CATR: initial weights, compared with those of the published network (parity notes, "Initial weights")."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from avsbench_methods.catr import CATR
from avsbench_methods.catr.model import CATRModel
from avsbench_methods.catr.upstream import rename

from avsbench_harness.files import read_json
from avsbench_harness.tasks import S4

KEYS = Path(__file__).parents[2] / "fixtures" / "catr" / "pvt.keys.json"

#: Standard deviation and largest magnitude, measured on a freshly built published network.
MEASURED = {
    "transformer.temporal_encoder.attention_feature.0.weight": (0.02067, 0.03601),
    "transformer.temporal_encoder.output1.0.weight": (0.02085, 0.03608),
    "transformer.temporal_encoder.output2.0.weight": (0.02087, 0.03608),
    "spatial_decoder.lay1.weight": (0.02083, 0.03608),
    "spatial_decoder.lay2.weight": (0.02084, 0.03608),
    "spatial_decoder.lay3.weight": (0.02946, 0.05103),
    "spatial_decoder.lay4.weight": (0.04153, 0.07216),
    "spatial_decoder.adapter1.weight": (0.06239, 0.1083),
    "spatial_decoder.adapter2.weight": (0.06231, 0.1082),
    "spatial_decoder.out_lay.weight": (0.05869, 0.1021),
}


class Distribution(NamedTuple):
    """Mean, standard deviation and upper limit of the magnitude; a standard deviation of 0 is a constant."""

    mean: float
    std: float
    limit: float = math.inf

    def check(self, name: str, values: torch.Tensor) -> None:
        """Compare values with the distribution, within five standard errors."""
        values = values.detach().double()
        if not self.std:
            assert (values == self.mean).all(), name
            return
        count = values.numel()
        assert abs(values.mean() - self.mean) < 5 * self.std / math.sqrt(count), name
        assert values.std() == pytest.approx(self.std, rel=5 / math.sqrt(2 * count)), name
        assert values.abs().max() <= self.limit * (1 + 1e-6), name
        if math.isfinite(self.limit):
            assert values.abs().max() > self.limit * (1 - 20 / count), name


def constant(value: float) -> Distribution:
    return Distribution(value, 0)


def uniform(limit: float) -> Distribution:
    return Distribution(0, limit / math.sqrt(3), limit)


def fans(shape: Sequence[int]) -> tuple[int, int]:
    """Inputs and outputs of a weight."""
    area = math.prod(shape[2:])
    return shape[1] * area, shape[0] * area


def published(name: str, shapes: dict[str, list[int]]) -> Distribution:
    """The distribution of a published parameter: the exceptions, else PyTorch's default."""
    shape, weight = shapes[name], name.endswith(".weight")
    owner = name.rpartition(".")[0] + ".weight"
    if name == "obj_queries.weight":
        return Distribution(0, 1)
    if "conv2d_list" in name and weight:
        return Distribution(0, 0.01)
    if name.startswith("spatial_decoder.") and len(shapes.get(owner, ())) > 1:
        return uniform(math.sqrt(3 / fans(shape)[0])) if weight else constant(0)
    if name.endswith(("in_proj_bias", "out_proj.bias")):
        return constant(0)
    if name.startswith("transformer.") and ".audio_proj." not in name and len(shape) > 1:
        return uniform(math.sqrt(6 / sum(fans(shape))))
    if len(shape) > 1 or len(shapes.get(owner, ())) > 1:  # linear layers and convolutions
        return uniform(1 / math.sqrt(fans(shapes[owner])[0]))
    if shape == [1]:  # PReLU
        return constant(0.25)
    return constant(float(weight))  # normalisation


def build(variant: str) -> CATRModel:
    torch.manual_seed(0)
    model = CATR().build(S4, "pvt", variant=variant)
    assert isinstance(model, CATRModel)
    return model


def test_initial_weights_as_released() -> None:
    shapes: dict[str, list[int]] = read_json(KEYS)
    ours = dict(build("released").named_parameters())
    sources = {rename(name): name for name in shapes}
    compared = {name: values for name, values in ours.items() if not name.startswith("backbone.")}
    assert len(compared) > 150
    for name, values in compared.items():  # the recipe loads the backbone's weights
        published(sources[name], shapes).check(name, values)
    for name, (std, most) in MEASURED.items():
        values = ours[str(rename(name))].detach()
        assert values.std().item() == pytest.approx(std, rel=0.02), name
        assert values.abs().max().item() == pytest.approx(most, rel=2e-3), name


def test_initial_weights_of_the_paper_are_those_of_the_release() -> None:
    model = build("paper")
    gate, feature = model.temporal_encoder.gate, model.mask_feature
    for conv in gate.convs:
        uniform(math.sqrt(6 / (9 * (512 + 256)))).check("gate", conv.weight)
    for merge in gate.merge:
        uniform(math.sqrt(6 / (9 * 512))).check("merge", merge[0].weight)
    for name in ("lay1", "lay2", "lay3", "lay4", "adapter1", "adapter2"):
        std, most = MEASURED[f"spatial_decoder.{name}.weight"]
        part = feature.get_submodule(str(rename(f"spatial_decoder.{name}.weight")).split(".", 1)[1][:-7])
        assert part.weight.detach().std().item() == pytest.approx(std, rel=0.02), name
        assert part.weight.detach().abs().max().item() == pytest.approx(most, rel=2e-3), name
        assert not part.bias.any()


def test_the_convolution_of_the_direct_decoder_is_initialised_as_the_others() -> None:
    torch.manual_seed(0)
    model = CATR().build(S4, "resnet10t", variant="paper", encoder="none", decoding="direct")
    uniform(math.sqrt(3 / 256)).check("mask_head", model.mask_head.weight)
    assert not model.mask_head.bias.any()
