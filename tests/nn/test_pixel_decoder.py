from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from avsbench_harness.nn.deformable import MultiScaleDeformableAttention, cell_centres
from avsbench_harness.nn.pixel_decoder import DeformableLayer, PixelDecoder
from avsbench_harness.nn.positions import sine_positions

CHANNELS = (8, 12, 16, 20)


def decoder(layers: int = 2) -> PixelDecoder:
    torch.manual_seed(0)
    return PixelDecoder(CHANNELS, 64, layers=layers, ffn_dim=32).eval()


def features(height: int = 64, width: int = 96, count: int = 2) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [
        torch.randn(count, size, height // stride, width // stride)
        for size, stride in zip(CHANNELS, (4, 8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_shapes_coarsest_first(size: tuple[int, int]) -> None:
    height, width = size
    mask_features, maps = decoder()(features(height, width))
    assert mask_features.shape == (2, 64, height // 4, width // 4)
    assert [level.shape for level in maps] == [
        (2, 64, height // stride, width // stride) for stride in (32, 16, 8)
    ]


def test_a_layer_is_post_norm_attention_and_a_relu_block() -> None:
    torch.manual_seed(0)
    layer = DeformableLayer(64, 32, levels=2)
    shapes = [(2, 3), (4, 6)]
    tokens, positions, centres = torch.randn(2, 30, 64), torch.randn(30, 64), cell_centres(shapes)
    attended = F.layer_norm(tokens + layer.self_attn(tokens + positions, centres, tokens, shapes), (64,))
    hidden = torch.clamp(attended @ layer.linear1.weight.T + layer.linear1.bias, min=0)
    expected = F.layer_norm(attended + hidden @ layer.linear2.weight.T + layer.linear2.bias, (64,))
    torch.testing.assert_close(layer(tokens, positions, centres, shapes), expected)


def test_without_layers_the_two_finest_maps_are_projected_and_combined() -> None:
    model, maps = decoder(layers=0), features()
    mask_features, levels = model(maps)
    for found, level, project in zip(levels, reversed(maps[1:]), model.input_projections, strict=True):
        torch.testing.assert_close(found, project(level))
    joined = model.lateral(maps[0]) + F.interpolate(levels[2], scale_factor=2, mode="bilinear")
    torch.testing.assert_close(mask_features, model.mask_features(model.output(joined)))


def test_levels_exchange_information_and_images_do_not() -> None:
    model, maps = decoder(), features()
    with torch.no_grad():
        before, coarse = model(maps)
        maps[3] = maps[3].clone()
        maps[3][0] += torch.randn_like(maps[3][0])
        after, changed = model(maps)
    assert (after[0] - before[0]).abs().max() > 1e-4
    assert (changed[2][0] - coarse[2][0]).abs().max() > 1e-4
    torch.testing.assert_close(after[1], before[1])


def test_queries_have_position_and_level_encodings() -> None:
    """The encodings that the first layer adds are sine positions plus one embedding per level."""
    model, maps = decoder(layers=1), features(count=1)
    seen = []
    model.layers[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs))
    model(maps)
    tokens, positions, centres, shapes = seen[0]
    assert shapes == [(2, 3), (4, 6), (8, 12)]
    start = 0
    for level, (height, width) in enumerate(shapes):
        part = slice(start, start + height * width)
        place = sine_positions(height, width, 64, normalize=True).flatten(0, 1)
        torch.testing.assert_close(positions[part] - place, model.level_embedding[level].expand_as(place))
        start += height * width
    torch.testing.assert_close(centres, cell_centres(shapes))
    assert tokens.shape == (1, start, 64)


def test_autocast_has_no_effect() -> None:
    model = decoder()
    maps = [level.bfloat16() for level in features()]
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        mask_features, levels = model(maps)
    assert {mask_features.dtype, *(level.dtype for level in levels)} == {torch.float32}
    with torch.no_grad():
        torch.testing.assert_close(model([level.float() for level in maps])[0], mask_features)


def test_every_parameter_has_a_gradient() -> None:
    model = decoder().train()
    mask_features, levels = model(features())
    (mask_features.square().sum() + sum(level.square().sum() for level in levels)).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_offsets_start_as_directions() -> None:
    for layer in decoder().layers:
        assert isinstance(layer.self_attn, MultiScaleDeformableAttention)
        assert not layer.self_attn.sampling_offsets.weight.any()
        assert layer.self_attn.sampling_offsets.bias.any()
