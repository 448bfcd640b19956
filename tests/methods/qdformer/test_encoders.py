"""QDFormer's encoders, compared with the paper's equations."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from avsbench_methods.qdformer.encoders import Fusion, pixel_positions, time_positions
from avsbench_methods.qdformer.options import Options
from torch import Tensor
from torch.testing import assert_close

from avsbench_harness.tasks import S4

from .helpers import SMALL, draw


def attention_by_hand(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, heads: int
) -> Tensor:
    """One query row at a time, one head at a time."""
    weights, biases = module.in_proj.weight.chunk(3), module.in_proj.bias.chunk(3)
    q, k, v = (x @ w.T + b for x, w, b in zip((query, key, value), weights, biases, strict=True))
    width = q.shape[-1] // heads
    rows = []
    for row in q:
        parts = []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            scores = (k[:, part] @ row[part]) / math.sqrt(width)
            share = scores.exp() / scores.exp().sum()  # over everything that can be seen
            parts.append((share[:, None] * v[:, part]).sum(0))
        rows.append(torch.cat(parts))
    return torch.stack(rows) @ module.out_proj.weight.T + module.out_proj.bias


def test_equation_3_audio_attends_to_all_frames_of_the_clip() -> None:
    torch.manual_seed(0)
    fusion = Fusion(Options.of(SMALL, S4, "paper")).eval()
    audio, video = draw(2, 3, 32), draw(2, 3, 32, 2, 2, seed=1)
    valid = torch.tensor([[True, True, True], [True, False, False]])
    with torch.no_grad():
        got = fusion(audio, video, valid)
        for clip in range(2):
            times, pixels = time_positions(3, audio), pixel_positions(video[0])
            keys, values = [], []
            for frame in range(3):
                if valid[clip, frame]:
                    tokens = video[clip, frame].flatten(1).T
                    values.append(tokens)
                    keys.append(tokens + pixels + times[frame])
            block = fusion.cross_attn
            read = attention_by_hand(
                block.attention, audio[clip] + times, torch.cat(keys), torch.cat(values), 4
            )
            hidden = F.layer_norm(read + audio[clip], (32,))
            expanded = fusion.ffn.linear2(fusion.ffn.linear1(hidden).clamp(min=0))
            want = F.layer_norm(expanded + hidden, (32,))
            assert_close(got[clip], want, rtol=1e-4, atol=1e-5)


def test_time_positions_do_not_depend_on_the_number_of_frames() -> None:
    like = torch.zeros(1, 32)
    assert_close(time_positions(10, like)[:5], time_positions(5, like))
    assert len({tuple(row.tolist()) for row in time_positions(10, like)}) == 10
