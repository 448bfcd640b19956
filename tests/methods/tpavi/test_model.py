"""TPAVI as released: behaviour of a small network."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from avsbench_methods.tpavi.loss import matching_loss, segmentation_loss
from torch import Tensor, nn

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.tasks import AVSS, MS3, S4, Task
from avsbench_harness.testing.seeded import seeded_input

from .helpers import build, without_memory


def batch(clips: int = 2, frames: int = 3, size: tuple[int, int] = (64, 64), **fields: Any) -> Batch:
    images = seeded_input(1, "images", (clips, frames, 3, *size))
    return Batch(images, seeded_input(1, "audio", (clips, frames, 128)), **fields)


def part(whole: Batch, clips: slice, frames: slice) -> Batch:
    return Batch(whole.images[clips, frames], whole.audio[clips, frames])


def masks(like: Batch, classes: int = 2) -> Tensor:
    clips, frames, height, width = like.shape
    return torch.randint(classes, (clips, frames, height, width), generator=torch.Generator().manual_seed(3))


def supervised(task: Task, **fields: Any) -> Batch:
    clips = batch()
    return Batch(clips.images, clips.audio, masks=masks(clips, 71 if task is AVSS else 2), **fields)


def supervised_with(task: Task, truth: Tensor, annotated: Tensor) -> Batch:
    clips = supervised(task)
    return Batch(clips.images, clips.audio, masks=truth, annotated=annotated)


@pytest.mark.parametrize("task", [S4, AVSS])
@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_shapes(task: Task, size: tuple[int, int]) -> None:
    model, clips = build(task), batch(size=size)
    height, width = size
    with torch.no_grad():
        output, prediction = model(clips), model.predict(clips)
    assert output.logits.shape == (2, 3, task.channels, height, width)
    assert [level.shape for level in output.features] == [
        (2, 3, 16, height // stride, width // stride) for stride in (4, 8, 16, 32)
    ]
    assert [sound.shape for sound in output.sounds] == [(2, 3, 16)] * 4
    if task.semantic:
        assert torch.equal(prediction, output.logits)
    else:
        torch.testing.assert_close(prediction, output.logits[:, :, 0].sigmoid())


def test_sides_that_are_no_multiples_of_32_are_refused() -> None:
    with pytest.raises(UsageError, match=r"multiples of 32, got 50x64 pixels.*image_size"):
        build()(batch(size=(64, 50)))


@torch.no_grad()
def test_frames_attend_to_their_window_of_their_clip() -> None:
    model, clips = build(), batch(frames=7)
    together = model(clips).logits
    for clip, frames in itertools.product((0, 1), (slice(0, 5), slice(5, 7))):
        alone = model(part(clips, slice(clip, clip + 1), frames)).logits
        torch.testing.assert_close(alone[0], together[clip, frames], rtol=0, atol=1e-4)
    single = model(part(clips, slice(0, 1), slice(0, 1))).logits
    assert (single[0, 0] - together[0, 0]).abs().max() > 1e-3


@torch.no_grad()
def test_without_a_window_all_frames_attend_to_each_other() -> None:
    clips = batch(clips=1, frames=7)
    audio = clips.audio.clone()
    audio[:, 6] += 1
    for window, attends in ((5, False), (None, True)):
        model = build(window=window)
        change = (model(clips.with_audio(audio)).logits - model(clips).logits).abs().amax(dim=(2, 3, 4))[0]
        assert (change[0] > 1e-4) == attends
        assert change[6] > 1e-4


@pytest.mark.parametrize("task", [S4, AVSS])
@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_padded_frames_are_zero_and_change_nothing(task: Task, training: bool) -> None:
    model = build(task).train(training)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # in training all frames meet there
            module.eval()
    valid = torch.tensor([[True, True, False], [False, False, False]])
    clips = batch(valid=valid)
    clips.images[~valid] = float("nan")
    clips.audio[~valid] = float("nan")
    output, prediction = model(clips), model.predict(clips)
    for values in (output.logits, *output.features, *output.sounds, prediction):
        assert torch.isfinite(values).all()
        assert not values[~valid].any()
    alone = model(part(batch(), slice(0, 1), slice(0, 2)))
    torch.testing.assert_close(output.logits[:1, :2], alone.logits, rtol=0, atol=1e-4)


def test_padded_frames_count_in_batch_norms_in_training() -> None:
    valid = torch.arange(6)[None] < 3
    clips = batch(clips=1, frames=6, valid=valid)
    with_all, without = build(window=3).train(), build(window=3).train()
    with torch.no_grad():
        with_all(clips)
        without(part(clips, slice(0, 1), slice(0, 3)))
    for name in ("backbone.body.bn1.running_var", "interactions.0.out_norm.running_var"):
        one, other = (model.state_dict()[name] for model in (with_all, without))
        assert not torch.allclose(one, other), name


def test_a_batch_without_valid_frames_is_zero() -> None:
    clips = batch(valid=torch.zeros(2, 3, dtype=torch.bool))
    with torch.no_grad():
        output, prediction = build()(clips), build().predict(clips)
    assert prediction.shape == (2, 3, 64, 64)
    assert [level.shape[2:] for level in output.features] == [(16, s, s) for s in (16, 8, 4, 2)]
    assert not prediction.any()
    assert not output.logits.any()


@pytest.mark.parametrize("task", [S4, MS3, AVSS])
def test_a_batch_without_valid_frames_has_zero_gradients(task: Task) -> None:
    model = build(task).train()
    losses = model.losses(replace(supervised(task), valid=torch.zeros(2, 3, dtype=torch.bool)))
    assert set(losses) == ({"iou"} if task is S4 else {"iou", "avm"})
    sum(losses.values()).backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("task", [S4, MS3, AVSS])
def test_every_parameter_has_a_gradient(task: Task) -> None:
    model = build(task).train()
    losses = model.losses(supervised(task))
    assert set(losses) == ({"iou"} if task is S4 else {"iou", "avm"})
    sum(losses.values()).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    # Exactly zero only inside timm's residual blocks, which begin with a gain of zero.
    idle = [name for name, gradient in gradients.items() if not gradient.any()]
    assert [name for name in idle if not name.startswith("backbone.body.layer")] == []


def test_each_loss_uses_its_frames_only() -> None:
    annotated = torch.zeros(2, 3, dtype=torch.bool)
    annotated[:, 0] = True
    for task, reaches in ((S4, True), (MS3, True), (AVSS, False)):
        model = build(task, avm="av")
        truth = supervised(task).masks
        elsewhere, there = truth.clone(), truth.clone()
        elsewhere[:, 1:] = 0
        there[:, 0] = 0
        first, second, third = (
            torch.stack(list(model.losses(supervised_with(task, change, annotated)).values())).detach()
            for change in (truth, elsewhere, there)
        )
        assert torch.equal(first, second)
        assert first[0] != third[0]
        # The matching loss needs no truth; only avss leaves frames without it out.
        with torch.no_grad():
            everywhere = model.losses(supervised(task))["avm"]
        assert torch.equal(first[1], everywhere) == reaches


@pytest.mark.slow
@pytest.mark.parametrize("task", [S4, AVSS])
def test_not_decoding_frames_without_loss_changes_no_gradient(task: Task) -> None:
    annotated = torch.tensor([[True, False, False], [True, True, False]])
    one, other = build(task).train().double(), build(task).train().double()
    clips = supervised(task, annotated=annotated)
    clips = replace(clips, images=clips.images.double(), audio=clips.audio.double())
    sum(one.losses(clips).values()).backward()
    output = other(clips)  # all frames decoded
    losses = segmentation_loss(output.logits[annotated], clips.masks[annotated])
    if task is AVSS:
        levels = [level[annotated] for level in output.features]
        sounds = [sound[annotated] for sound in output.sounds]
        losses = losses + 0.5 * matching_loss(output.logits[annotated], levels, sounds, other.options)
    losses.backward()
    for (name, mine), theirs in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, msg=name)
    for (name, mine), theirs in zip(one.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, msg=name)


@pytest.mark.parametrize("task", [S4, AVSS])
def test_losses_without_annotated_frames_are_zero(task: Task) -> None:
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    model = build(task).train()
    losses = model.losses(supervised(task, annotated=nothing))
    assert {float(value.detach()) for value in losses.values()} == {0.0}
    sum(losses.values()).backward()


def test_weight_scales_the_matching_loss_and_none_drops_it() -> None:
    clips = supervised(MS3)
    with torch.no_grad():
        light, heavy, none = (
            build(MS3, **options).losses(clips)
            for options in ({"avm_weight": 0.1}, {"avm_weight": 0.5}, {"avm": "none"})
        )
    assert light["iou"] == heavy["iou"] == none["iou"]
    torch.testing.assert_close(5 * light["avm"], heavy["avm"])
    assert set(none) == {"iou"}


def test_silent_frames_and_all_classes_give_finite_losses() -> None:
    clips = batch(clips=1, frames=10)
    truth = torch.arange(10 * 64 * 64).view(1, 10, 64, 64) % 71
    for options in ({}, {"avm_distance": "cosine", "avm_hard_mask": True, "avm_normalise": True}):
        losses = build(AVSS, **options).losses(
            Batch(clips.images, torch.zeros_like(clips.audio), masks=truth)
        )
        assert all(torch.isfinite(value) for value in losses.values())


def test_initial_weights_are_as_published() -> None:
    model, clips = build(gain=False), batch()
    for projection in model.projections:
        for conv in projection.convs:
            assert float(conv.weight.detach().std()) == pytest.approx(0.01, rel=0.1)
    with torch.no_grad():  # the interaction begins as a mere normalisation
        assert torch.equal(model(clips).logits, model(clips.with_audio(-clips.audio)).logits)


def test_pvt_drops_paths_in_training_as_released() -> None:
    rates = [getattr(module, "drop_prob", None) or 0.0 for module in without_memory("pvt").backbone.modules()]
    assert max(rates) == pytest.approx(0.1)
