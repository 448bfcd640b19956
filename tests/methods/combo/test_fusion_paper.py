"""COMBO's fusion, compared with the paper's equations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from avsbench_methods.combo.fusion import AudioQueries, BilateralFusion
from avsbench_methods.combo.options import PAPER, Options

from avsbench_harness.nn.positions import sine_positions

from .helpers_paper import VARIANTS


def part(seed: int = 0, **options: Any) -> tuple[BilateralFusion, torch.Tensor, torch.Tensor]:
    """Return a fusion with large parameters, a map and audio."""
    torch.manual_seed(seed)
    module = BilateralFusion(Options(**{**PAPER, "dim": 64, **options})).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter))
    return module, torch.randn(3, 64, 4, 6), torch.randn(3, 128)


def equations_4_and_5(
    module: BilateralFusion, features: torch.Tensor, audio: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the equations frame by frame from the weights of the module."""
    place = sine_positions(4, 6, 64, normalize=True).flatten(0, 1)
    state = module.state_dict()

    def linear(name: str, tokens: torch.Tensor) -> torch.Tensor:
        return F.linear(tokens, state[f"{name}.weight"], state[f"{name}.bias"])

    maps, sounds = [], []
    for frame, sound in zip(features, audio, strict=True):
        pixels = frame.flatten(1).T
        p, f = pixels + place, sound[None] + state["audio_positions"]
        logits = linear("query", p) @ linear("key", f).T / math.sqrt(256)  # (P,1)
        to_pixels = linear("visual_out", logits.softmax(dim=1) @ linear("audio_value", f))
        to_sound = linear("audio_out", logits.T.softmax(dim=1) @ linear("visual_value", p))
        maps.append((pixels + to_pixels).T.view(64, 4, 6))
        sounds.append(sound + to_sound[0])
    return torch.stack(maps), torch.stack(sounds)


@pytest.mark.parametrize("seed", [0, 1])
def test_fusion_is_equations_4_and_5(seed: int) -> None:
    module, features, audio = part(seed)
    with torch.no_grad():
        found, expected = module(features, audio), equations_4_and_5(module, features, audio)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("mode", ["visual", "audio"])
def test_a_single_direction_equals_that_direction_of_both(mode: str, variant: str) -> None:
    base = {} if variant == "paper" else {name: Options.model_fields[name].default for name in PAPER}
    base["fusion_overwrites"] = False
    both, features, audio = part(**base)
    one, *_ = part(**base, fusion=mode)
    one.load_state_dict({name: both.state_dict()[name] for name in one.state_dict()})
    with torch.no_grad():
        full, half = both(features, audio), one(features, audio)
    changed, kept = (0, 1) if mode == "visual" else (1, 0)
    torch.testing.assert_close(half[changed], full[changed])
    assert half[kept] is (features, audio)[kept]
    assert (full[kept] - half[kept]).abs().max() > 1e-2


@pytest.mark.parametrize(
    "options",
    [
        {"fusion_heads": 8},
        {"fusion_norm": True},
        {"fusion_norm": True, "normed_residual": False},
        {"fusion_level_embedding": True},
        {"fusion_positions": "logits"},
        {"fusion_gamma": 1e-4},
        {"visual_softmax": "positions"},
        {"attention_limit": 0.1},
    ],
    ids=str,
)
def test_every_option_of_the_fusion_changes_its_result(options: dict[str, Any]) -> None:
    paper, features, audio = part()
    other, *_ = part(**options)
    state = other.state_dict()
    state.update({name: value for name, value in paper.state_dict().items() if name in state})
    other.load_state_dict(state)
    with torch.no_grad():
        pairs = zip(paper(features, audio), other(features, audio), strict=True)
        assert max((one - two).abs().max() for one, two in pairs) > 1e-3


def test_gamma_has_the_initial_value_of_the_option() -> None:
    module = BilateralFusion(Options(dim=64, fusion_gamma=0.5))
    assert module.visual_gamma is not None
    assert module.visual_gamma.eq(0.5).all()
    assert [name for name, _ in part()[0].named_parameters() if "gamma" in name] == []


def test_queries_all_are_the_audio_and_add_adds_learned_ones() -> None:
    options = {**PAPER, "queries": 5, "dim": 64, "audio_mlp_dim": 16}
    torch.manual_seed(0)
    alone = AudioQueries(Options(**options, audio_queries="all"))
    added = AudioQueries(Options(**options, audio_queries="add"))
    added.load_state_dict({**added.state_dict(), **alone.state_dict()})
    sounds = torch.randn(3, 128)
    with torch.no_grad():
        projected = alone.mlp(sounds)
        for frame in range(3):  # every query of a frame uses that frame
            assert torch.equal(alone(sounds)[frame], projected[frame].expand(5, -1))
            assert added.queries is not None
            torch.testing.assert_close(added(sounds)[frame], projected[frame] + added.queries)
    assert alone.queries is None
