"""AQFormer's pixel_decoder, compared with the paper's equations."""

from __future__ import annotations

import math

from avsbench_methods.aqformer.pixel_decoder import AudioFusion
from torch.testing import assert_close

from avsbench_harness.testing.seeded import seeded_input

from .helpers import drawn, options


def test_every_pixel_receives_its_frames_audio_with_a_softmax_over_audio() -> None:
    fusion = drawn(AudioFusion(16, options()))
    visual = seeded_input(5, "V", (3, 16, 2, 3))
    audio = seeded_input(5, "A", (3, 128))
    fused = fusion(visual, audio)
    assert fused.shape == (3, 64, 2, 3)
    f_q, f_k = seeded_input(6, "q", (64, 16)), seeded_input(6, "k", (64, 128))
    for t in range(3):
        pixels = visual[t].flatten(1).T
        logits = (pixels @ f_q.T) @ (audio[t : t + 1] @ f_k.T).T / math.sqrt(64)  # (HW,1)
        attended = logits.softmax(dim=-1) @ fusion.value(audio[t : t + 1])
        expected = attended + fusion.content(pixels)
        assert_close(fused[t].flatten(1).T, expected, rtol=1e-4, atol=1e-5)


def test_the_softmax_over_pixels_is_equation_1_per_frame() -> None:
    fusion = drawn(AudioFusion(16, options(audio_softmax="pixels", fusion_dim=32)))
    visual = seeded_input(5, "V", (2, 16, 2, 3))
    audio = seeded_input(5, "A", (2, 128))
    fused = fusion(visual, audio)
    for t in range(2):
        pixels = visual[t].flatten(1).T
        logits = fusion.query(pixels) @ fusion.key(audio[t : t + 1]).T / math.sqrt(32)  # (HW,1)
        weights = logits.softmax(dim=0)
        expected = weights @ fusion.value(audio[t : t + 1]) + fusion.content(pixels)
        assert_close(fused[t].flatten(1).T, expected, rtol=1e-4, atol=1e-5)
        assert weights.std() > 0.01
