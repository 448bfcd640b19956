"""QDFormer's quantization, compared with the paper's equations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from avsbench_methods.qdformer import QDFormer
from avsbench_methods.qdformer.options import Options
from avsbench_methods.qdformer.quantization import QuantizedTokens, Quantizer, quantization_losses
from torch import Tensor
from torch.testing import assert_close

from avsbench_harness.tasks import S4

from .helpers import SMALL, build, clips


def quantizer(codes: list[list[float]], **options: Any) -> Quantizer:
    made = Quantizer(Options.of({**SMALL, "codebook_size": len(codes), **options}, S4, "paper"))
    made.codebook = torch.nn.Parameter(torch.tensor(codes))
    return made


def equation_9(lambda_com: float = 0.5) -> tuple[dict[str, Tensor], Quantizer, Tensor, Tensor]:
    """One clip with two tokens in two frames, codes (1,0) and (0,2)."""
    codes = quantizer([[1.0, 0.0], [0.0, 2.0]])
    clip = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]], requires_grad=True)
    frames = torch.tensor([[[1.0, 1.0], [0.0, 4.0]], [[1.0, 0.0], [3.0, 0.0]]], requires_grad=True)
    losses = quantization_losses(
        QuantizedTokens(clip, codes(clip)[0]), QuantizedTokens(frames, codes(frames)[0]), lambda_com
    )
    return losses, codes, clip, frames


def test_vq_takes_the_nearest_code_in_the_2_norm() -> None:
    # The largest product with (1, 1) has (9, 9), the nearest in the maximum norm is (2.5, 2.5).
    codes = quantizer([[9.0, 9.0], [2.5, 2.5], [1.0, 2.9], [-1.0, -1.0]])
    tokens = torch.tensor([[[1.0, 1.0], [8.0, 5.0]], [[-9.0, 0.0], [1.6, 2.2]]])
    assert codes.nearest(tokens).tolist() == [[2, 0], [3, 2]]
    values, passed = codes(tokens)
    assert_close(values, codes.codebook[torch.tensor([[2, 0], [3, 2]])])
    assert_close(passed, values.detach())


def test_straight_through_gradients_skip_the_codebook() -> None:
    codes = quantizer([[1.0, 0.0], [0.0, 1.0]])
    tokens = torch.tensor([[0.9, 0.2], [0.3, 0.4]], requires_grad=True)
    weight = torch.tensor([[1.0, -2.0], [3.0, 5.0]])
    _, passed = codes(tokens)
    (passed * weight).sum().backward()
    assert_close(tokens.grad, weight)
    assert codes.codebook.grad is None


def test_equation_9_values() -> None:
    losses = equation_9()[0]
    # Clip: |(1,0)-(2,0)|^2 + |(0,2)-(0,1)|^2 = 2. Frames: 1 + 4 in the first, 0 + 4 in the second.
    assert {name: term.item() for name, term in losses.items()} == {
        "codebook": 2.0,
        "commit_global": 1.0,
        "commit_local": 4.5,
    }


@pytest.mark.parametrize(
    ("term", "moved"), [("codebook", "codebook"), ("commit_global", "clip"), ("commit_local", "frames")]
)
def test_equation_9_each_term_has_a_gradient_for_one_input(term: str, moved: str) -> None:
    losses, codes, clip, frames = equation_9()
    losses[term].backward()
    gradients = {"codebook": codes.codebook.grad, "clip": clip.grad, "frames": frames.grad}
    touched = {name for name, gradient in gradients.items() if gradient is not None and gradient.any()}
    assert touched == {moved}
    by_hand = {
        "codebook": [[-2.0, 0.0], [0.0, 2.0]],  # 2 (e - g) at each code
        "clip": [[[1.0, 0.0], [0.0, -1.0]]],  # 2 lambda_com (g - e)
        "frames": [[[0.0, 1.0], [0.0, 2.0]], [[0.0, 0.0], [2.0, 0.0]]],
    }
    assert_close(gradients[moved], torch.tensor(by_hand[moved]))


def test_equation_9_in_the_network() -> None:
    """The terms that the network returns have the same stop-gradients, and their weights."""
    batch = clips()
    model = build(dropout=0.0, quant_weight=0.5, commit_weight=0.25)
    codebook, own = model.quantizer.codebook, lambda module: next(module.parameters())
    parameters = {
        "codebook": codebook,
        "global": own(model.global_decoder.layers[0].ffn),
        "local": own(model.local_decoder.layers[0].ffn),
    }
    moved = {
        "codebook": {"codebook"},
        "commit_global": {"global"},
        "commit_local": {"local"},
        "mask_bce": {"global", "local"},
        "mask_dice": {"global", "local"},
        "class": {"global", "local"},
        "box_l1": {"global", "local"},
        "box_giou": {"global", "local"},
    }
    assert set(model.losses(batch)) == set(moved)
    for term, want in moved.items():
        model.zero_grad()
        model.losses(batch)[term].backward()
        got = {name for name, p in parameters.items() if p.grad is not None and p.grad.any()}
        assert got == want, term
    with torch.no_grad():
        losses, output = model.losses(batch), model(batch)
    error = (output.clip_codes - output.clip_tokens).square().sum() / 2
    local = (output.frame_codes - output.frame_tokens).square().sum() / 2
    assert_close(losses["codebook"], 0.5 * error)
    assert_close(losses["commit_global"], 0.5 * 0.25 * error)
    assert_close(losses["commit_local"], 0.5 * 0.25 * local)


def test_the_codebook_is_the_only_parameter_of_that_name() -> None:
    model = build(codebook_size=16)
    named = {name: p.shape for name, p in model.named_parameters() if name.endswith("codebook")}
    assert named == {"quantizer.codebook": (16, 32)}
    assert dict(QDFormer().build(S4, "resnet10t", variant="paper").named_parameters())[
        "quantizer.codebook"
    ].shape == (128, 256)


def test_codebook_diagnostics() -> None:
    codes = quantizer([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], dead_after=2)
    one = torch.tensor([[[2.0, 0.0], [0.0, 3.0]]])
    codes.observe(one)
    assert codes.diagnostics() == pytest.approx({"codebook_perplexity": 2.0, "codebook_dead": 0.0})
    codes.observe(torch.tensor([[[2.0, 0.0], [2.0, 0.0]]]))
    assert codes.dead().tolist() == [False, False, True, True]
    shares = [0.99 * 0.5 + 0.01, 0.99 * 0.5]
    perplexity = math.exp(-sum(share * math.log(share) for share in shares))
    assert codes.diagnostics() == pytest.approx({"codebook_perplexity": perplexity, "codebook_dead": 2.0})


def test_dead_codes_are_reset_only_with_the_option() -> None:
    start = [[1.0, 0.0], [0.0, 1.0], [-9.0, 0.0]]
    tokens = torch.tensor([[[2.0, 0.0], [0.0, 3.0]]])
    kept, revived = quantizer(start, dead_after=1), quantizer(start, dead_after=1, revive_dead_codes=True)
    for codes in (kept, revived):
        codes.observe(tokens)
    assert_close(kept.codebook.detach(), torch.tensor(start))
    assert_close(revived.codebook[:2].detach(), torch.tensor(start[:2]))
    assert any(torch.equal(revived.codebook[2], token) for token in tokens[0])
    assert revived.idle.tolist() == [0, 0, 0]


def test_usage_is_updated_in_training_only() -> None:
    model, batch = build(), clips()
    with torch.no_grad():
        model.predict(batch)
    assert not model.quantizer.usage.any()
    model.train().losses(batch)
    assert model.diagnostics()["codebook_perplexity"] >= 1
    assert build(decomposition="none").diagnostics() == {}
