"""CATR's encoder, compared with the paper's equations."""

from __future__ import annotations

import pytest
import torch
from avsbench_methods.catr.encoder import AudioTokens, FusionBlock
from avsbench_methods.catr.frames import Frames

from avsbench_harness.testing.seeded import seeded_input

from .helpers_paper import options, reference_attention, same


@pytest.mark.parametrize("va_keys", ["spatial", "fused"])
@torch.no_grad()
def test_a_block_by_equations_3_to_5(va_keys: str) -> None:
    torch.manual_seed(2)
    block = FusionBlock(options(va_keys=va_keys), last=False).eval()
    assert block.spatial is not None
    assert block.to_video is not None
    assert block.to_audio is not None
    frames = Frames(torch.ones(2, 3, dtype=torch.bool))
    video, audio = seeded_input(1, "video", (6, 4, 64)), seeded_input(1, "audio", (2, 3, 64))
    positions = seeded_input(1, "positions", (4, 64))
    found_video, found_audio = block(video, audio, positions, AudioTokens(frames, whole=False))
    for clip in range(2):
        pixels, sounds = [], []
        for frame in range(3):  # equation 3: the frame's pixels and its own second
            mixed = torch.cat((video[3 * clip + frame], audio[clip, frame : frame + 1]))[None]
            codes = torch.cat((positions, torch.zeros(1, 64)))
            fused = block.spatial(mixed, codes, None)[0]
            pixels.append(fused[:4])
            sounds.append(fused[4:])
        video_in, audio_in = torch.cat(pixels)[None], torch.cat(sounds)[None]
        # Equation 4: every pixel of the clip and all seconds.
        video_out = video_in + reference_attention(block.to_video.attention, video_in, audio_in, audio_in)
        same(found_video[3 * clip : 3 * clip + 3].flatten(0, 1), video_out[0])
        # Equation 5: the other way round.
        source = video_in if va_keys == "spatial" else video_out
        keys = source + positions.repeat(3, 1)
        audio_out = audio_in + reference_attention(block.to_audio.attention, audio_in, keys, source)
        same(found_audio[clip], audio_out[0])
