"""AQFormer's decoder, compared with the paper's equations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from avsbench_methods.aqformer.decoder import AudioQueriedDecoder, DecoderLayer
from torch import Tensor, nn
from torch.testing import assert_close

from avsbench_harness.errors import UsageError
from avsbench_harness.testing.seeded import seeded_input

from .helpers import batch, build, drawn, options, reference_attention


def codes(height: int, width: int, dim: int) -> Tensor:
    from avsbench_harness.nn.positions import sine_positions

    return sine_positions(height, width, dim, normalize=True).flatten(0, 1)


@pytest.mark.parametrize("query_frames", ["all", "own"])
def test_a_decoder_layer_is_equations_3_to_5(query_frames: str) -> None:
    layer: DecoderLayer = drawn(DecoderLayer(options(query_frames=query_frames)))
    queries, maps = seeded_input(1, "A", (2, 3, 64)), seeded_input(1, "M", (2, 3, 64, 2, 3))
    result = layer(queries, maps, torch.ones(2, 3, dtype=torch.bool))

    def normed(norm: nn.LayerNorm, values: Tensor) -> Tensor:
        return F.layer_norm(values, (64,), norm.weight, norm.bias)

    for clip in range(2):
        before = queries[clip]
        pixels = [maps[clip, t].flatten(1).T for t in range(3)]
        places = codes(2, 3, 64)
        if query_frames == "all":
            values = torch.cat(pixels)
            read = reference_attention(layer.cross_attn, before, values + places.repeat(3, 1), values)
        else:
            read = torch.cat(
                [
                    reference_attention(layer.cross_attn, before[t : t + 1], pixels[t] + places, pixels[t])
                    for t in range(3)
                ]
            )
        x = normed(layer.cross_norm, read) + before  # equation 3
        x = normed(layer.self_norm, reference_attention(layer.self_attn, x, x, x)) + x  # equation 4
        x = normed(layer.ffn_norm, layer.linear2(layer.linear1(x).relu())) + x  # equation 5
        assert_close(result[clip], x, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("query_frames", "attends"), [("all", True), ("own", False)])
def test_which_frames_a_query_attends_to(query_frames: str, attends: bool) -> None:
    layer = drawn(DecoderLayer(options(query_frames=query_frames)))
    queries, maps = seeded_input(1, "A", (1, 3, 64)), seeded_input(1, "M", (1, 3, 64, 2, 2))
    other = maps.clone()
    other[:, 2] += 1
    everything = torch.ones(1, 3, dtype=torch.bool)
    change = (
        layer.attend_pixels(queries, maps, everything) - layer.attend_pixels(queries, other, everything)
    ).abs()
    assert (change[:, 0].max() > 1e-3) == attends
    assert change[:, 2].max() > 1e-3


def test_layers_attend_to_the_scales_in_turn_from_coarse_to_fine() -> None:
    decoder: AudioQueriedDecoder = drawn(AudioQueriedDecoder(options(stages=2), scales=3, vanilla_queries=5))
    audio, valid = seeded_input(1, "A", (1, 2, 128)), torch.ones(1, 2, dtype=torch.bool)
    maps = [seeded_input(1, f"M{side}", (1, 2, 64, side, side)) for side in (1, 2, 4)]
    before = decoder(audio, maps, valid)
    assert before.shape == (1, 2, 6, 64)
    for first, _ in enumerate(maps):
        changed = [level + (index == first) for index, level in enumerate(maps)]
        moved = (decoder(audio, changed, valid) - before).abs().amax(dim=(0, 1, 3)) > 1e-4
        assert moved.tolist() == [False] * first + [True] * (6 - first)


def test_the_output_norm_applies_to_the_queries_of_every_layer_but_not_to_their_updates() -> None:
    normed = drawn(AudioQueriedDecoder(options(), scales=3, vanilla_queries=5))
    plain = AudioQueriedDecoder(options(output_norm=False), scales=3, vanilla_queries=5)
    plain.load_state_dict(
        {name: value for name, value in normed.state_dict().items() if "output_norm" not in name}
    )
    audio, valid = seeded_input(1, "A", (2, 3, 128)), torch.ones(2, 3, dtype=torch.bool)
    maps = [seeded_input(1, f"M{side}", (2, 3, 64, side, side)) for side in (1, 2, 4)]
    norm = normed.output_norm
    expected = F.layer_norm(plain(audio, maps, valid), (64,), norm.weight, norm.bias)
    assert_close(normed(audio, maps, valid), expected)


def test_initial_queries_are_the_projected_audio_of_their_frames() -> None:
    decoder = drawn(AudioQueriedDecoder(options(), scales=3, vanilla_queries=5))
    audio, valid = seeded_input(1, "A", (2, 3, 128)), torch.ones(2, 3, dtype=torch.bool)
    projection = decoder.audio_projection
    for clip in range(2):
        for t in range(3):
            expected = projection.weight @ audio[clip, t] + projection.bias
            assert_close(decoder.initial_queries(audio, valid)[clip, t], expected)


def test_vanilla_queries_are_learned_per_frame_and_independent_of_the_audio() -> None:
    decoder = drawn(AudioQueriedDecoder(options(queries="vanilla"), scales=3, vanilla_queries=5))
    valid = torch.tensor([[True, False, True, True], [True, True, False, False]])
    first = decoder.initial_queries(seeded_input(1, "A", (2, 4, 128)), valid)
    assert torch.equal(first, decoder.initial_queries(seeded_input(2, "A", (2, 4, 128)), valid))
    assert torch.equal(first[0, [0, 2, 3]], decoder.queries[:3])
    assert torch.equal(first[1, :2], decoder.queries[:2])


def test_more_frames_than_vanilla_queries_are_refused() -> None:
    with pytest.raises(UsageError, match="5, one per frame, and a clip has 6 frames"):
        build(queries="vanilla").predict(batch(clips=1, frames=6))
