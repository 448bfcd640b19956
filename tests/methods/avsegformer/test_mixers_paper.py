"""AVSegFormer's mixers, compared with the paper's equations."""

from __future__ import annotations

import pytest
import torch
from avsbench_methods.avsegformer.mixers import ChannelAttentionMixer, CrossAttentionMixer


def randomise(module: torch.nn.Module, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) / max(1, parameter.shape[-1]) ** 0.5)


@pytest.mark.parametrize("seed", range(2))
def test_channel_attention_mixer_is_equation_2(seed: int) -> None:
    mixer = ChannelAttentionMixer(8, sigmoid=False, residual=True, heads=2).double()
    randomise(mixer, seed)
    draw = torch.Generator().manual_seed(seed)
    feature = torch.randn(2, 5, 8, generator=draw, dtype=torch.float64)
    audio = torch.randn(2, 8, generator=draw, dtype=torch.float64)
    expected = torch.empty_like(feature)
    for frame in range(2):
        weights = []
        for head in (slice(0, 4), slice(4, 8)):
            query = mixer.q_proj.weight[head] @ audio[frame]
            keys = feature[frame] @ mixer.kv_proj.weight[:8][head].T
            values = feature[frame] @ mixer.kv_proj.weight[8:][head].T
            weights.append((keys @ query / 4**0.5).softmax(0) @ values)
        omega = mixer.proj(torch.cat(weights))
        expected[frame] = feature[frame] + feature[frame] * omega
    torch.testing.assert_close(mixer(feature, audio), expected)
    mixer.residual, mixer.sigmoid = False, True
    released = (
        feature
        * mixer.proj.weight.new_tensor(
            torch.stack([((expected[n] - feature[n]) / feature[n]).mean(0) for n in range(2)]).tolist()
        ).sigmoid()[:, None]
    )
    torch.testing.assert_close(mixer(feature, audio), released)


def test_cross_attention_mixer_adds_one_vector_per_frame_that_depends_on_the_audio() -> None:
    mixer = CrossAttentionMixer(16)
    feature, audio = torch.randn(2, 5, 16), torch.randn(2, 16)
    added = mixer(feature, audio) - feature
    torch.testing.assert_close(added, added[:, :1].expand_as(added))
    value = audio @ mixer.attention.in_proj.weight[32:].T
    torch.testing.assert_close(added[:, 0], mixer.attention.out_proj(value))
    assert not torch.allclose(added[0], added[1])
