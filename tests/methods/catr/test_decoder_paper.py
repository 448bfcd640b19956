"""CATR's decoder, compared with the paper's equations."""

from __future__ import annotations

import functools

import torch
from avsbench_methods.catr.decoder import MaskFeature, QueryDecoder
from torch import nn

from avsbench_harness.testing.seeded import seeded_input

from .helpers_paper import options, reference_attention, same


@torch.no_grad()
def test_queries_are_initialised_with_their_frames_audio() -> None:
    torch.manual_seed(2)
    decoder = QueryDecoder(options(decoder_layers=1)).eval()
    nn.init.normal_(decoder.queries)
    tokens, codes = seeded_input(1, "tokens", (2, 5, 64)), seeded_input(1, "codes", (5, 64))
    sound = seeded_input(1, "sound", (2, 64))
    layer = decoder.layers[0]
    for frame in range(2):
        found = sound[frame].repeat(6, 1)[None]
        asking = found + decoder.queries
        found = layer.norm1(found + reference_attention(layer.self_attn, asking, asking, found))
        memory = tokens[frame : frame + 1]
        read = reference_attention(layer.cross_attn, found + decoder.queries, memory + codes, memory)
        found = layer.norm2(found + read)
        expected = decoder.norm(layer.norm3(found + layer.ffn(found)))
        same(decoder(tokens, codes, None, sound[:, None])[0, frame], expected[0])


@torch.no_grad()
def test_the_pyramid_ends_at_the_encoders_map() -> None:
    torch.manual_seed(0)
    feature = MaskFeature(options())
    encoded, half, quarter = (seeded_input(1, "map", (1, 64, size, size)) for size in (8, 4, 2))
    up = functools.partial(torch.repeat_interleave, repeats=2)
    maps = feature.steps[1](feature.steps[0](quarter))
    maps = feature.laterals[0](half) + up(up(maps, dim=2), dim=3)
    maps = feature.laterals[1](encoded) + up(up(feature.steps[2](maps), dim=2), dim=3)
    same(feature(encoded, half, quarter), feature.output(feature.steps[3](maps)))
