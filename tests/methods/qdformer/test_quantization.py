"""QDFormer's quantization, compared with the paper's equations."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from avsbench_methods.qdformer import QDFormer
from avsbench_methods.qdformer.options import Options
from avsbench_methods.qdformer.quantization import (
    QuantizedTokens,
    Quantizer,
    kmeans,
    quantization_losses,
)
from scipy.cluster.vq import kmeans2
from scipy.stats import entropy
from torch import Tensor
from torch.testing import assert_close

from avsbench_harness.tasks import S4

from .helpers import SMALL, build, clips, draw


def quantizer(codes: list[list[float]] | None = None, **options: Any) -> Quantizer:
    """A quantiser in literal mode, with these codes already in use."""
    size = {} if codes is None else {"codebook_size": len(codes)}
    made = Quantizer(Options.of({**SMALL, "literal": True, **size, **options}, S4, "paper"))
    if codes is not None:
        values = torch.tensor(codes)
        made.codebook = values if made.options.averaged else torch.nn.Parameter(values)
        made.started.fill_(True)
    return made


def equation_9(**options: Any) -> tuple[dict[str, Tensor], Quantizer, Tensor, Tensor]:
    """One clip with two tokens in two frames, codes (1,0) and (0,2)."""
    codes = quantizer([[1.0, 0.0], [0.0, 2.0]], commit_weight=0.5, **options)
    clip = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]], requires_grad=True)
    frames = torch.tensor([[[1.0, 1.0], [0.0, 4.0]], [[1.0, 0.0], [3.0, 0.0]]], requires_grad=True)
    losses = quantization_losses(
        QuantizedTokens(clip, codes(clip)[0]), QuantizedTokens(frames, codes(frames)[0]), codes.options
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
    model = build(literal=True, dropout=0.0, quant_weight=0.5, commit_weight=0.25)
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
    model = build(literal=True, codebook_size=16)
    named = {name: p.shape for name, p in model.named_parameters() if name.endswith("codebook")}
    assert named == {"quantizer.codebook": (16, 32)}
    full = QDFormer().build(S4, "resnet10t", variant="paper").state_dict()
    assert full["quantizer.codebook"].shape == (128, 256)


def test_without_the_loss_term_the_codebook_is_no_parameter() -> None:
    losses, codes, _, _ = equation_9(codebook_update="ema")
    assert {name: term.item() for name, term in losses.items()} == {"commit_global": 1.0, "commit_local": 4.5}
    assert not list(codes.parameters())
    assert set(codes.state_dict()) == set(quantizer().state_dict())


def test_local_updates_add_the_frame_tokens_to_the_first_term() -> None:
    losses, codes, clip, frames = equation_9(calibration="local_updates")
    assert losses["codebook"].item() == 11.0  # 2 of the clip, 5 and 4 of the frames
    losses["codebook"].backward()
    # 2 (e - x) of every token: (2,0), (1,1), (1,0), (3,0) have the first code; (0,1), (0,4) the second.
    assert_close(codes.codebook.grad, torch.tensor([[-6.0, -2.0], [0.0, -2.0]]))
    assert clip.grad is None
    assert frames.grad is None


@pytest.mark.parametrize("calibration", [True, "local_updates"])
def test_moving_averages_of_codes(calibration: bool | str) -> None:
    """Counts and sums as in van den Oord et al. 2017, appendix A.1, in NumPy."""
    generator = np.random.default_rng(0)
    start = generator.normal(size=(6, 2)).astype(np.float32)
    start[5] = 99.0  # never used
    codes = quantizer(start.tolist(), codebook_update="ema", ema_decay=0.8, calibration=calibration)
    numbers, sums = np.full(6, 0.2), 0.2 * start.astype(np.float64)
    for _ in range(25):
        clip = generator.normal(size=(3, 2, 2)).astype(np.float32)
        frames = generator.normal(loc=1.0, size=(5, 2, 2)).astype(np.float32)
        codes.update(torch.tensor(clip), torch.tensor(frames))
        rows = clip.reshape(-1, 2)
        if calibration == "local_updates":
            rows = np.concatenate([rows, frames.reshape(-1, 2)])
        own = np.argmin(((rows[:, None] - (sums / numbers[:, None])[None]) ** 2).sum(-1), axis=1)
        for code in range(6):
            numbers[code] = 0.8 * numbers[code] + 0.2 * (own == code).sum()
            sums[code] = 0.8 * sums[code] + 0.2 * rows[own == code].sum(axis=0)
    assert_close(codes.codebook.double(), torch.tensor(sums / numbers[:, None]), rtol=1e-4, atol=1e-4)
    assert codes.codebook[5].tolist() == [99.0, 99.0]


def test_k_means() -> None:
    tokens = draw(60, 3)
    centres = torch.cat([tokens[:4], torch.full((1, 3), 50.0)])  # the last one stays empty
    with warnings.catch_warnings(action="ignore"):
        want, _ = kmeans2(tokens.numpy(), centres.numpy(), iter=7, minit="matrix")
    assert_close(kmeans(tokens, centres, 7), torch.tensor(want))
    assert_close(kmeans(tokens, centres, 7)[4], centres[4])


def test_k_means_starts_from_the_tokens_of_the_unquantised_steps() -> None:
    codes = quantizer(codebook_size=8, codebook_init="kmeans", unquantized_steps=5)
    initial = codes.codebook.detach().clone()
    seen = [draw(4, 3, 32, seed=step) for step in range(6)]
    for step, clip in enumerate(seen):
        torch.manual_seed(0)
        codes.update(clip, draw(2, 3, 32, seed=99))
        assert codes.active == (step == 5)
        if step < 5:
            values, passed = codes(clip)
            assert_close(values, clip, rtol=0, atol=0)
            assert_close(passed, clip, rtol=0, atol=0)
            assert_close(codes.codebook.detach(), initial, rtol=0, atol=0)
            assert codes.diagnostics() == {}
    rows = torch.cat(seen).flatten(0, 1)[-64:]  # eight tokens per code
    torch.manual_seed(0)
    first = rows[torch.randperm(64)[:8]]
    with warnings.catch_warnings(action="ignore"):
        want, _ = kmeans2(rows.numpy(), first.numpy(), iter=10, minit="matrix")
    assert_close(codes.codebook.detach(), torch.tensor(want))
    assert not codes.pool.any()
    assert codes.diagnostics()["clip_perplexity"] > 1


@pytest.mark.parametrize("init", ["all_tokens", "clip_tokens", "normal"])
def test_codes_start_in_the_first_quantised_step(init: str) -> None:
    codes = quantizer(codebook_init=init, unquantized_steps=1)
    initial, clip, frames = codes.codebook.detach().clone(), draw(2, 3, 32), draw(9, 3, 32, seed=1)
    codes.update(draw(2, 3, 32, seed=2), frames)
    assert_close(codes.codebook.detach(), initial, rtol=0, atol=0)
    codes.update(clip, frames)
    pool = {"all_tokens": torch.cat([clip, frames]), "clip_tokens": clip, "normal": initial[None]}[init]
    rows = {tuple(row) for row in pool.flatten(0, 1).tolist()}
    found = {tuple(row) for row in codes.codebook.tolist()}
    assert found <= rows
    assert len(found) == min(16, len(rows))


def test_updates_are_in_float32_whatever_the_precision() -> None:
    states = []
    for enabled in (False, True):
        codes = quantizer(codebook_update="ema", codebook_init="kmeans")
        codes.codebook.copy_(draw(16, 32, seed=9))
        for step in range(3):
            torch.manual_seed(step)
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                codes.update(draw(20, 3, 32, seed=step), draw(4, 3, 32, seed=50 + step))
        states.append(codes.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize("update", ["loss", "ema"])
def test_a_quantiser_resumes_bit_for_bit(update: str) -> None:
    def make() -> Quantizer:
        return quantizer(
            codebook_update=update, codebook_init="kmeans", unquantized_steps=3, revive_dead_codes=True,
            dead_after=2,
        )  # fmt: skip

    def train(codes: Quantizer, steps: range) -> None:
        for step in steps:
            torch.manual_seed(step)
            codes.update(draw(2, 3, 32, seed=step), draw(4, 3, 32, seed=50 + step))

    whole = make()
    train(whole, range(12))
    for stop in (2, 3, 7):
        first, second = make(), make()
        train(first, range(stop))
        second.load_state_dict(first.state_dict())
        train(second, range(stop, 12))
        for name, value in whole.state_dict().items():
            assert torch.equal(second.state_dict()[name], value), (stop, name)


def test_codebook_diagnostics() -> None:
    codes = quantizer([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], dead_after=2)
    assert codes.diagnostics() == {}
    both = torch.tensor([[[2.0, 0.0], [0.0, 3.0]]])
    frames = torch.tensor([[[2.0, 0.0], [-2.0, 0.0]], [[0.0, -2.0], [-2.0, 0.0]]])
    codes.update(both, frames)
    assert codes.diagnostics() == pytest.approx(
        {
            "clip_perplexity": 2.0,
            "frame_perplexity": math.exp(entropy([0.25, 0.5, 0.25])),
            "frames_on_clip_codes": 0.25,
            "dead_codes": 0.0,
        }
    )
    codes.update(torch.tensor([[[2.0, 0.0], [2.0, 0.0]]]), torch.tensor([[[0.0, 1.0], [2.0, 0.0]]]))
    assert codes.dead().tolist() == [False, False, True, True]
    assert codes.diagnostics() == pytest.approx(
        {
            "clip_perplexity": math.exp(entropy([0.99 * 0.5 + 0.01, 0.99 * 0.5])),
            "frame_perplexity": math.exp(entropy([0.99 * 0.25 + 0.005, 0.005, 0.99 * 0.5, 0.99 * 0.25])),
            "frames_on_clip_codes": 0.99 * 0.25 + 0.01,
            "dead_codes": 2.0,
        }
    )
    codes.update(torch.tensor([[[2.0, 0.0], [2.0, 0.0]]]))  # the second code dies, too
    shares = torch.tensor([0.99 * 0.25 + 0.005])
    assert codes.diagnostics()["frames_on_clip_codes"] == pytest.approx(shares.item())


@pytest.mark.parametrize("update", ["loss", "ema"])
def test_dead_codes_are_reset_only_with_the_option(update: str) -> None:
    start = [[1.0, 0.0], [0.0, 1.0], *([[-9.0, 0.0]] * 3)]
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    kept, revived = (
        quantizer(start, dead_after=1, codebook_update=update, revive_dead_codes=revive)
        for revive in (False, True)
    )
    for codes in (kept, revived):
        codes.update(tokens)
    assert_close(kept.codebook.detach(), torch.tensor(start))
    assert_close(revived.codebook[:2].detach(), torch.tensor(start[:2]))
    # Two tokens revive two codes, each a different one; the third waits.
    assert sorted(revived.codebook[2:4].tolist()) == [[0.0, 1.0], [1.0, 0.0]]
    assert revived.codebook[4].tolist() == [-9.0, 0.0]
    assert revived.idle.tolist() == [0, 0, 0, 0, 1]


def test_usage_is_updated_in_training_only() -> None:
    model, batch = build(), clips()
    with torch.no_grad():
        model.predict(batch)
    assert model.diagnostics() == {}
    assert not model.quantizer.steps
    model.train().losses(batch)
    assert model.diagnostics()["clip_perplexity"] >= 1
    assert build(decomposition="none").diagnostics() == {}
