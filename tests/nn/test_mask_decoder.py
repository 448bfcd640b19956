from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from avsbench_harness.nn.mask_decoder import MaskDecoder, MaskDecoderLayer, attention_mask, mask_logits


def decoder(layers: int = 4) -> MaskDecoder:
    torch.manual_seed(0)
    return MaskDecoder(32, 3, layers=layers, ffn_dim=48).eval()


def inputs(count: int = 2) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor], torch.Tensor]:
    torch.manual_seed(1)
    maps = [torch.randn(count, 32, side, side + 1) for side in (2, 4, 8)]
    return torch.randn(count, 5, 32), torch.randn(5, 32), maps, torch.randn(count, 32, 16, 20)


def test_predictions_before_and_after_every_layer() -> None:
    queries, positions, maps, features = inputs()
    predictions = decoder()(queries, positions, maps, features)
    assert len(predictions.class_logits) == len(predictions.embeddings) == 5
    assert {logits.shape for logits in predictions.class_logits} == {(2, 5, 4)}
    assert predictions.masks(0).shape == predictions.masks().shape == (2, 5, 16, 20)
    by_hand = torch.einsum("nqc,nchw->nqhw", predictions.embeddings[2], features)
    torch.testing.assert_close(predictions.masks(2), by_hand)


def reference(module: nn.Module) -> nn.MultiheadAttention:
    """PyTorch's own attention with the same weights."""
    attention = nn.MultiheadAttention(32, 8, batch_first=True)
    attention.load_state_dict(
        {name.replace("in_proj.", "in_proj_"): value for name, value in module.state_dict().items()}
    )
    return attention.eval()


def test_a_layer_is_cross_attention_self_attention_and_a_relu_block() -> None:
    torch.manual_seed(0)
    layer = MaskDecoderLayer(32, 48, heads=8)
    queries, place = torch.randn(2, 5, 32), torch.randn(5, 32)
    pixels, pixel_place = torch.randn(2, 12, 32), torch.randn(12, 32)
    allowed = torch.rand(2, 1, 5, 12) > 0.4
    cross, itself = reference(layer.cross_attn), reference(layer.self_attn)
    blocked = ~allowed.expand(-1, 8, -1, -1).flatten(0, 1)
    read = cross(queries + place, pixels + pixel_place, pixels, attn_mask=blocked, need_weights=False)[0]
    expected = layer.cross_norm(queries + read)
    placed = expected + place
    expected = layer.self_norm(expected + itself(placed, placed, expected, need_weights=False)[0])
    hidden = torch.clamp(expected @ layer.linear1.weight.T + layer.linear1.bias, min=0)
    expected = layer.ffn_norm(expected + hidden @ layer.linear2.weight.T + layer.linear2.bias)
    found = layer(queries, place, pixels, pixel_place, allowed)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_queries_attend_inside_their_masks_or_everywhere() -> None:
    features = torch.tensor([[[[1.0, -1.0, 0.0, 2.0]]]])  # one channel, 1x4 pixels
    embeddings = torch.tensor([[[1.0], [-1.0], [0.0]]])
    allowed = attention_mask(embeddings, features)
    assert allowed.shape == (1, 1, 3, 4)
    assert allowed[0, 0].tolist() == [[True, False, True, True], [False, True, True, False], [True] * 4]
    empty = attention_mask(torch.tensor([[[-1.0]]]), features.abs() + 1)
    assert empty.all()


def test_resizing_features_resizes_masks() -> None:
    _, _, maps, features = inputs()
    embeddings = torch.randn(2, 5, 32)
    size = maps[1].shape[-2:]
    small = F.interpolate(features, size=size, mode="bilinear", align_corners=False)
    of_masks = F.interpolate(
        mask_logits(embeddings, features), size=size, mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(mask_logits(embeddings, small), of_masks, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_layers_alternate_between_maps_and_respect_the_attention_mask(level: int) -> None:
    """Layer ``level`` attends to map ``level``: a change of that map first has an effect one depth later, and
    only on queries that may attend to the changed pixel."""
    model = decoder(layers=3)
    queries, positions, maps, features = inputs()
    with torch.no_grad():
        before = model(queries, positions, maps, features)
        small = F.interpolate(features, size=maps[level].shape[-2:], mode="bilinear", align_corners=False)
        allowed = attention_mask(before.embeddings[level], small)[:, 0, :, 1]  # pixel 1
        assert allowed.any()
        assert not allowed.all()
        changed = [each.clone() for each in maps]
        changed[level].flatten(2)[..., 1] += 3.0
        after = model(queries, positions, changed, features)
        for depth in range(level + 1):
            assert torch.equal(after.embeddings[depth], before.embeddings[depth])
        # Self-attention spreads the change, so the layer's cross-attention is tested alone.
        layer = model.layers[level]
        tokens = [each[level].flatten(2).transpose(1, 2) for each in (maps, changed)]
        place = torch.zeros_like(tokens[0][0])
        mask = attention_mask(before.embeddings[level], small)
        read = [layer.cross_attn(queries, each + place, each, mask=mask) for each in tokens]
    difference = (read[1] - read[0]).abs().amax(dim=-1)
    assert (difference[allowed] > 1e-4).all()
    assert not difference[~allowed].any()
    assert (after.embeddings[level + 1] - before.embeddings[level + 1]).abs().max() > 1e-4


def test_attention_masks_have_no_gradient_and_all_parameters_have_one() -> None:
    model = decoder().train()
    queries, positions, maps, features = inputs()
    features.requires_grad_()
    predictions = model(queries, positions, maps, features)
    # Classes do not depend on the features, so only the mask could give these a gradient.
    (gradient,) = torch.autograd.grad(
        predictions.class_logits[-1].sum(), features, retain_graph=True, allow_unused=True
    )
    assert gradient is None
    total = sum(logits.square().sum() for logits in predictions.class_logits)
    (total + predictions.masks().square().sum()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert features.grad is not None
