"""TPAVI's interaction, compared with the paper's equations."""

from __future__ import annotations

import torch
from avsbench_methods.tpavi.interaction import Addition


def test_addition_adds_each_frames_audio() -> None:
    block = Addition(4, audio_bias=True)
    pixels, audio = torch.randn(1, 2, 3, 3, 4), torch.randn(1, 2, 128)
    found, sound = block(pixels, audio, torch.ones(1, 2, dtype=torch.bool))
    for frame in (0, 1):
        expected = block.align.weight @ audio[0, frame] + block.align.bias
        torch.testing.assert_close(sound[0, frame], expected)
        torch.testing.assert_close(found[0, frame, 1, 2] - pixels[0, frame, 1, 2], expected)
