"""AQFormer's interaction, compared with the paper's equations."""

from __future__ import annotations

import pytest
import torch
from avsbench_methods.aqformer.interaction import AudioBridgedInteraction
from torch import Tensor
from torch.testing import assert_close

from avsbench_harness.testing.seeded import seeded_input

from .helpers import drawn, options, reference_attention


def plain_abti(
    module: AudioBridgedInteraction, features: Tensor, audio: Tensor, remap: str = "peak"
) -> Tensor:
    """Section 3.4 pair by pair, for one clip: F (T,C,h,w), A (T,128)."""
    frames = len(features)
    pixels = [frame.flatten(1).T for frame in features]  # (HW,C)
    weights, objects = {}, []
    for p in range(frames):
        for q in range(frames):
            logits = module.sound(audio[p : p + 1]) @ module.match(pixels[q]).T
            weights[p, q] = logits.softmax(dim=-1)  # equation 9, (1,HW)
            objects.append(weights[p, q] @ module.collect(pixels[q]))  # equation 10
    sequence = torch.cat(objects)
    updated = reference_attention(module.interact, sequence, sequence, sequence)
    enhanced = []
    for q in range(frames):
        total = pixels[q]
        for p in range(frames):
            remapped = weights[p, q] if remap == "softmax" else weights[p, q] / weights[p, q].max()
            total = total + remapped.T @ module.spread(updated[p * frames + q][None])  # equation 11
        enhanced.append(total.T.view(features[q].shape))  # equation 12
    return torch.stack(enhanced)


@pytest.mark.parametrize("remap", ["peak", "softmax"])
@pytest.mark.parametrize("seed", [1, 2])
def test_abti_is_equations_9_to_12(seed: int, remap: str) -> None:
    module = drawn(AudioBridgedInteraction(options(abti_dim=32, remap=remap)), seed)
    maps, audio = seeded_input(seed, "F", (2, 3, 64, 2, 3)), seeded_input(seed, "A", (2, 3, 128))
    enhanced = module(maps, audio, torch.ones(2, 3, dtype=torch.bool))
    for clip in range(2):
        expected = plain_abti(module, maps[clip], audio[clip], remap)
        assert_close(enhanced[clip], expected, rtol=1e-3, atol=1e-4, msg=f"seed {seed}, clip {clip}")
        assert (expected - maps[clip]).abs().max() > 0.1


def test_abti_ignores_padded_frames() -> None:
    module = drawn(AudioBridgedInteraction(options(abti_dim=32)))
    maps, audio = seeded_input(1, "F", (1, 4, 64, 2, 3)), seeded_input(1, "A", (1, 4, 128))
    valid = torch.tensor([[True, False, True, True]])
    maps[~valid] = 0
    enhanced = module(maps, audio, valid)
    assert not enhanced[~valid].any()
    assert_close(enhanced[valid], plain_abti(module, maps[valid], audio[valid]), rtol=1e-3, atol=1e-4)
