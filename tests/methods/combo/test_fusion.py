"""COMBO as released: fusion."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from avsbench_methods.combo.fusion import BilateralFusion, audio_sources, build_fusion
from avsbench_methods.combo.options import Options

from avsbench_harness.tasks import S4


def fusion(**options: Any) -> tuple[BilateralFusion, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    module = build_fusion(Options.of({"dim": 64, **options}, S4, "released"))
    assert module is not None
    module.eval()
    with torch.no_grad():
        for parameter in module.parameters():  # biases and gammas would hardly show
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter))
    return module, torch.randn(3, 64, 4, 6), torch.randn(3, 128)


def written_out(module: BilateralFusion, features: torch.Tensor, audio: torch.Tensor) -> tuple[Any, Any]:
    """The fusion step by step, with every pixel projected."""
    from avsbench_harness.nn.positions import sine_positions

    pixels = features.flatten(2).transpose(1, 2) + module.visual_embedding
    visual, sound = module.visual_norm(pixels), module.audio_norm(audio)
    place = sine_positions(4, 6, 64, normalize=True).flatten(0, 1)

    def heads(tokens: torch.Tensor) -> torch.Tensor:
        return tokens.unflatten(-1, (8, 32)).transpose(1, 2)  # (N,heads,L,32)

    query = heads(module.query(visual + place))
    key = heads(module.key(sound + module.audio_positions)[:, None])
    logits = query @ key.transpose(2, 3) / 32**0.5
    if module.limit is not None:
        logits = logits.clamp(-module.limit, module.limit)
    over_pixels = logits.softmax(dim=2)
    weights = over_pixels if module.visual_softmax == "positions" else logits.softmax(dim=3)
    to_pixels = weights @ heads(module.audio_value(sound)[:, None])
    to_sound = over_pixels.transpose(2, 3) @ heads(module.visual_value(visual))
    given = module.visual_out(to_pixels.transpose(1, 2).flatten(2))
    update = module.audio_out(to_sound.transpose(1, 2).flatten(2)[:, 0])
    base = (visual, sound) if module.normed_residual else (pixels, audio)
    fused = base[0] + module.visual_gamma * given
    return fused.transpose(1, 2).unflatten(2, (4, 6)), base[1] + module.audio_gamma * update


@pytest.mark.parametrize(("frames", "queries"), [(5, 100), (10, 100), (3, 7), (40, 100)])
def test_scrambled_audio_is_a_reshape_instead_of_a_transpose(frames: int, queries: int) -> None:
    sounds = torch.arange(frames)[:, None].expand(frames, queries)
    scrambled = audio_sources(frames, queries, "scrambled")
    assert torch.equal(scrambled, sounds.reshape(queries, frames).T)
    assert torch.equal(audio_sources(frames, queries, "own"), sounds)


@pytest.mark.parametrize(
    "options", [{}, {"visual_softmax": "sounds"}, {"normed_residual": False}, {"attention_limit": 0.1}]
)
def test_fusion_is_its_equations(options: dict[str, Any]) -> None:
    module, features, audio = fusion(**options)
    with torch.no_grad():
        for found, expected in zip(
            module(features, audio), written_out(module, features, audio), strict=True
        ):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_fusion_options_change_the_result_and_no_limit_equals_a_high_one() -> None:
    module, features, audio = fusion()
    with torch.no_grad():
        released = module(features, audio)[0]
        for name, value in (("visual_softmax", "sounds"), ("normed_residual", False), ("limit", 0.1)):
            module, *_ = fusion()
            setattr(module, name, value)
            assert (module(features, audio)[0] - released).abs().max() > 1e-3, name
        module, *_ = fusion(attention_limit=None)
        assert torch.equal(module(features, audio)[0], released)


def test_released_fusion_into_pixels_alone_gives_every_pixel_the_whole_sound() -> None:
    module, features, audio = fusion(fusion="visual")
    with torch.no_grad():
        fused, kept = module(features, audio)
        pixels = features.flatten(2).transpose(1, 2) + module.visual_embedding
        # A softmax over the only sound is 1, whatever the logits: one update for all pixels of a frame.
        update = module.visual_out(module.audio_value(module.audio_norm(audio)))
        expected = module.visual_norm(pixels) + module.visual_gamma * update[:, None]
        torch.testing.assert_close(fused, expected.transpose(1, 2).unflatten(2, (4, 6)))
        spread, *_ = fusion(fusion="visual", visual_softmax="positions")
        assert (spread(features, audio)[0] - fused).abs().max() > 1e-2
    assert kept is audio


def test_released_fusion_into_the_audio_alone_is_bilateral() -> None:
    both, features, audio = fusion()
    alone, *_ = fusion(fusion="audio")
    kept, *_ = fusion(fusion="audio", fusion_overwrites=False)
    assert alone.state_dict().keys() == both.state_dict().keys()
    with torch.no_grad():
        for found, expected in zip(alone(features, audio), both(features, audio), strict=True):
            assert torch.equal(found, expected)
        assert kept(features, audio)[0] is features


def test_released_pixels_without_fusion_still_have_the_learned_vector() -> None:
    module, features, audio = fusion(fusion="none")
    assert [name for name, _ in module.named_parameters()] == ["visual_embedding"]
    with torch.no_grad():
        added, kept = module(features, audio)
    assert torch.equal(added, features + module.visual_embedding.detach()[0, :, None, None])
    assert kept is audio
    assert build_fusion(Options.of({"fusion": "none"}, S4, "paper")) is None
