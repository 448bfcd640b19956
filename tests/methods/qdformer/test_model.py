"""QDFormer: a small network with padded frames, all tasks and all rows of Table 2."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from avsbench_methods.qdformer import QDFormer
from avsbench_methods.qdformer.mask_decoder import FramePredictions
from avsbench_methods.qdformer.model import QDFormerModel
from torch import Tensor
from torch.testing import assert_close

from avsbench_harness.data.batch import Batch
from avsbench_harness.engine.optim import build_optimizer
from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.resolve import resolve
from avsbench_harness.tasks import AVSS, MS3, Task

from .helpers import TABLE_2, build, clips, draw

QUANTIZATION = {"codebook", "commit_global", "commit_local"}


SEGMENTATION = {"mask_bce", "mask_dice", "class", "box_l1", "box_giou"}


def audio_gradient(model: QDFormerModel, which: str, frame: int | None) -> Tensor:
    """Return (T,), the gradient norm of a frame's or the clip's tokens for each frame's audio."""
    batch = clips(clips=1)
    audio = batch.audio.clone().requires_grad_()
    output = model(batch.with_audio(audio))
    tokens = getattr(output, which)
    tokens = tokens if frame is None else tokens[:, frame]
    tokens.mul(draw(*tokens.shape, seed=5)).sum().backward()
    return audio.grad.abs().sum(dim=(0, 2))


def with_predictions(model: QDFormerModel, classes: list, masks: Tensor) -> None:
    """Replace the output of the mask decoder by these class probabilities (Q,C) and mask logits (Q,h,w)."""
    logits = torch.logit(torch.tensor(classes))[None]

    def predict(queries: Tensor, video: Tensor, maps: Any, *, auxiliary: bool) -> list[FramePredictions]:
        frames = len(queries)
        boxes = torch.zeros(frames, len(classes), 4)
        return [FramePredictions(logits.expand(frames, -1, -1), boxes, masks.expand(frames, *masks.shape))]

    model.mask_decoder.forward = predict  # type: ignore[method-assign]


def test_equation_4_clip_tokens_depend_on_the_audio_of_every_frame() -> None:
    assert (audio_gradient(build(), "clip_tokens", None) > 0).all()


@pytest.mark.parametrize("frame", range(3))
def test_equation_6_frame_tokens_depend_on_their_frames_audio_only(frame: int) -> None:
    nonzero = audio_gradient(build(), "frame_tokens", frame) > 0
    assert nonzero.tolist() == [index == frame for index in range(3)]


def test_equation_6_uses_the_audio_before_fusion() -> None:
    """f_{a,t} is of F_a, not of F'_a: other images change the clip's tokens, but not the frames' tokens."""
    model, batch = build(), clips()
    with torch.no_grad():
        one, two = model(batch), model(replace(batch, images=batch.images.flip(0)))
    assert_close(one.frame_tokens, two.frame_tokens, rtol=0, atol=0)
    assert (one.clip_tokens - two.clip_tokens).abs().max() > 1e-4


def test_prototypes_are_shared_by_default() -> None:
    assert build().local_prototypes is None
    assert build(shared_prototypes=False).local_prototypes.shape == (3, 32)


def test_equation_5_uses_the_tokens_of_the_frames_clip() -> None:
    """Two clips of different lengths: each frame is modulated by its own clip's tokens."""
    model, batch = build(), clips(valid=torch.tensor([[True, False, False], [True, True, True]]))
    with torch.no_grad():  # clips get codes of their own, so that a mix-up is seen
        tokens = model(batch).clip_tokens.flatten(0, 1)
        model.quantizer.codebook[: len(tokens)] = tokens
    seen: list[Tensor] = []
    model.recombination.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        output = model(batch)
    assert ((output.clip_codes[0] - output.clip_codes[1]).abs().amax(dim=1) > 1e-2).all()
    want = torch.stack([output.clip_codes[clip] for clip in (0, 1, 1, 1)])
    assert_close(seen[0], want)


def test_filters_from_tokens_before_quantisation() -> None:
    model = build(filter_tokens="continuous")
    seen: list[Tensor] = []
    model.recombination.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        output = model(clips(clips=1, frames=1))
    assert_close(seen[0], output.clip_tokens)
    assert (output.clip_tokens - output.clip_codes).abs().max() > 0.1


@pytest.mark.parametrize("row", ["non-Q SD", "Q SD", "Q SD + AVSR"])
def test_frames_with_different_sounds_have_different_masks(row: str) -> None:
    """Rows 3 to 5 of Table 2, with the same image in all frames; without frame tokens masks are the same."""
    batch = clips(clips=1)
    batch = replace(batch, images=batch.images[:, :1].repeat(1, 3, 1, 1, 1))
    loud = batch.with_audio(batch.audio * torch.tensor([1.0, 8.0, 64.0])[None, :, None])
    for changes, different in ((TABLE_2[row], True), ({**TABLE_2[row], "calibration": False}, False)):
        if row == "non-Q SD" and not different:
            changes = {**changes, "recombination": False}
        model = build(**changes, codebook_size=64)
        with torch.no_grad():
            model.train().losses(batch)  # initialises the codes with tokens
            masks = model.eval()(loud).mask_logits[0]
        differences = (masks[0] - masks[1:]).abs().amax(dim=(1, 2, 3))
        assert (differences > 1e-3).all() if different else not differences.any()


@pytest.mark.parametrize("own", [0.0, None])
def test_no_dropout_before_the_quantiser(own: float | None) -> None:
    """Two passes in training over the same clips have the same tokens, but not the same masks."""
    model, batch = (
        build(
            dropout=0.5,
            audio_dropout=own,
        ).train(),
        clips(),
    )
    model.visual_encoder.eval()
    with torch.no_grad():
        one, two = model(batch), model(batch)
    assert torch.equal(one.frame_tokens, two.frame_tokens) == (own is not None)
    assert torch.equal(one.clip_tokens, two.clip_tokens) == (own is not None)
    assert not torch.equal(one.mask_logits, two.mask_logits)


def test_the_local_decoder_can_start_from_the_global_one() -> None:
    for init, same in (("global", True), ("random", False)):
        model = build(local_init=init)
        pairs = list(zip(model.global_decoder.parameters(), model.local_decoder.parameters(), strict=True))
        assert all(one is not two for one, two in pairs)
        assert all(torch.equal(one, two) for one, two in pairs) == same


def test_the_unquantised_steps() -> None:
    """In training and evaluation, tokens pass unchanged until the codes are initialised."""
    model, batch = build(unquantized_steps=2), clips()
    for step in range(4):
        model.train()
        losses = model.losses(batch)
        model.eval()
        with torch.no_grad():
            output = model(batch)
        started = step >= 2
        assert torch.equal(output.frame_codes, output.frame_tokens) != started
        assert torch.equal(output.clip_codes, output.clip_tokens) != started
        assert bool(losses["commit_local"] == 0) != started
        assert losses["mask_bce"] > 0


def test_the_codebook_has_a_learning_rate_of_its_own() -> None:
    recipe = resolve(QDFormer(), MS3, "r50")
    model = build(codebook_update="loss", codebook_lr_scale=80.0)
    optimizer = build_optimizer(model.param_groups(recipe), recipe.optimizer)
    groups = {group["lr"]: group for group in optimizer.param_groups}
    assert sorted(groups) == pytest.approx([5e-5, 1e-4, 8e-3])
    own = groups[max(groups)]
    assert own["weight_decay"] == 0
    assert [p is model.quantizer.codebook for p in own["params"]] == [True]
    count = sum(len(group["params"]) for group in groups.values())
    assert count == len(list(model.parameters()))
    assert len(build(literal=True).param_groups(recipe)) == 2


def test_auxiliary_losses() -> None:
    """The segmentation losses are the sum of those of networks whose mask decoder ends at each layer."""
    model, batch = build(MS3, decoder_layers=3, auxiliary_losses=True), clips(MS3)
    plain = build(MS3, decoder_layers=3, auxiliary_losses=False)
    plain.load_state_dict(model.state_dict())
    layers = plain.mask_decoder.layers
    with torch.no_grad():
        got = model.losses(batch)
        parts = []
        for count in (1, 2, 3):
            plain.mask_decoder.layers = layers[:count]
            parts.append(plain.losses(batch))
        assert_close(model.predict(batch), plain.predict(batch))
    for name in SEGMENTATION:
        assert_close(got[name], sum(part[name] for part in parts))
    for name in got.keys() - SEGMENTATION:
        assert_close(got[name], parts[0][name])


def test_predictions_of_s4() -> None:
    model = build(score_threshold=0.2)
    masks = torch.full((2, 16, 16), -30.0)
    masks[0, :8], masks[1, :, 8:] = 30.0, 30.0
    with_predictions(model, [[0.2], [0.6]], masks)
    with torch.no_grad():
        got = model.predict(clips(clips=1, frames=1))[0, 0]
    assert got[0, 0] == pytest.approx(0.5)  # just at the threshold
    odds = 0.6 / 0.4 / (0.2 / 0.8)
    assert got[-1, -1] == pytest.approx(odds / (1 + odds))
    assert got[0, -1] == pytest.approx(odds / (1 + odds))  # the surer of two
    assert got[-1, 0] == pytest.approx(0, abs=1e-6)


def test_predictions_of_avss() -> None:
    model = build(AVSS, tokens=2, score_threshold=0.3)
    masks = torch.full((2, 16, 16), -30.0)
    masks[0, :8], masks[1, :, 8:] = 30.0, 30.0
    classes = [[0.01] * 70, [0.01] * 70]
    classes[0][4], classes[1][69] = 0.4, 0.9
    with_predictions(model, classes, masks)
    with torch.no_grad():
        labels = model.predict(clips(AVSS, clips=1, frames=1))[0, 0].argmax(dim=0)
    assert (labels[0, 0], labels[0, -1], labels[-1, -1], labels[-1, 0]) == (5, 70, 70, 0)


@pytest.mark.parametrize("row", TABLE_2)
def test_padding_changes_no_loss_and_no_gradient(row: str) -> None:
    """Also in training, where batch statistics are over valid frames only."""

    def learn(batch: Batch) -> dict[str, Tensor]:
        model = build(AVSS, dropout=0.0, **TABLE_2[row]).train()
        losses = model.losses(batch)
        sum(losses.values()).backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        return {**losses, **gradients, **dict(model.named_buffers())}

    short = clips(AVSS)
    nan = torch.full_like(short.images, float("nan"))
    padded = Batch(
        images=torch.cat([short.images, nan], dim=1),
        audio=torch.cat([short.audio, torch.full_like(short.audio, float("nan"))], dim=1),
        valid=(torch.arange(6) < 3).expand(2, 6),
        masks=torch.cat([short.masks, short.masks + 1], dim=1),
    )
    one, two = learn(short), learn(padded)
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert_close(two[name], value, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("row", TABLE_2)
@pytest.mark.parametrize("task", [MS3, AVSS])
def test_rows_of_table_2(row: str, task: Task) -> None:
    model = build(task, **TABLE_2[row]).train()
    losses = model.losses(clips(task))
    sum(losses.values()).backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert idle == []
    terms = {name for name in QUANTIZATION if model.options.quantized}
    terms -= {"codebook"} if model.options.averaged else set()
    assert set(losses) == terms | SEGMENTATION


def test_separated_sources() -> None:
    """Row 2 of Table 2: the baseline uses each source separately."""
    model, batch = build(decomposition="none"), clips()
    sources = draw(2, 3, 4, 128, seed=7).abs()
    with torch.no_grad():
        output = model(batch.with_audio(sources))
        alone = model(batch.with_audio(sources[:, :, 2]))
    assert output.class_logits.shape == (2, 3, 4 * 3, 1)
    assert output.clip_tokens.shape == (2, 4, 32)
    assert_close(output.clip_tokens[:, 2:3], alone.clip_tokens, rtol=1e-4, atol=1e-5)
    model.train().losses(batch.with_audio(sources))
    with pytest.raises(UsageError, match="decomposition=none"):
        build()(batch.with_audio(sources))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("row", TABLE_2)
def test_a_batch_without_valid_frames_has_zero_losses(row: str, training: bool) -> None:
    model = build(MS3, **TABLE_2[row]).train(training)
    batch = clips(MS3, valid=torch.zeros(2, 3, dtype=torch.bool))
    assert not model.predict(batch).any()
    losses = model.losses(batch)
    total = sum(losses.values())
    total.backward()
    assert total == 0
    assert set(losses) == set(model.losses(clips(MS3)))


def test_all_71_classes_in_one_frame() -> None:
    model, batch = build(AVSS).train(), clips(AVSS, clips=1, frames=1)
    batch.masks.view(-1)[:71] = torch.arange(71)
    assert all(term.isfinite() for term in model.losses(batch).values())


def test_a_clip_without_valid_frames_beside_another() -> None:
    model = build()
    valid = torch.tensor([[True] * 3, [False] * 3])
    with torch.no_grad():
        output, alone = model(clips(valid=valid)), model(clips().select(slice(0, 1)))
    assert not output.clip_tokens[1].any()
    assert not output.clip_codes[1].any()
    assert_close(output.mask_logits[:1], alone.mask_logits, rtol=1e-4, atol=1e-4)


def test_audio_tokens() -> None:
    model, batch = build(), clips()
    with torch.no_grad():
        assert_close(model.audio_tokens(batch), model(batch).clip_tokens)
        assert build(decomposition="none").audio_tokens(batch).shape == (2, 1, 32)
