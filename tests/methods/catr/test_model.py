"""CATR as released: behaviour of a small network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from avsbench_methods.catr.loss import Targets, clip_losses, weigh

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.tasks import MS3, S4, Task
from avsbench_harness.testing.seeded import seeded_input

from .helpers import build, same

TOKENS = pytest.mark.parametrize("tokens", ["clip", "frame"])


def batch(clips: int = 2, frames: int = 3, size: tuple[int, int] = (64, 64), **fields: Any) -> Batch:
    images = seeded_input(1, "images", (clips, frames, 3, *size))
    return Batch(images, seeded_input(1, "audio", (clips, frames, 128)), **fields)


def masks(like: Batch) -> torch.Tensor:
    clips, frames, height, width = like.shape
    return torch.randint(2, (clips, frames, height, width), generator=torch.Generator().manual_seed(3))


def truthful(**fields: Any) -> Batch:
    plain = batch()
    return Batch(plain.images, plain.audio, masks=masks(plain), **fields)


@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
@pytest.mark.parametrize("task", [S4, MS3])
@torch.no_grad()
def test_shapes(task: Task, size: tuple[int, int]) -> None:
    model, clips = build(task), batch(size=size)
    output, prediction = model(clips), model.predict(clips)
    assert len(output.earlier) == 1
    for layer in (output, *output.earlier):
        assert layer.reference_logits.shape == (2, 3, 6, 2)
        assert layer.mask_logits.shape == (2, 3, 6, size[0] // 16, size[1] // 16)
    assert prediction.shape == (2, 3, *size)


@torch.no_grad()
def test_the_prediction_is_the_mask_of_the_most_probable_query() -> None:
    model, clips = build(), batch()
    output, prediction = model(clips), model.predict(clips)
    for clip in range(2):
        for frame in range(3):
            reference = output.reference_logits[clip, frame]
            query = int((reference[:, 0] - reference[:, 1]).argmax())
            mask = output.mask_logits[clip, frame, query][None, None]
            mask = F.interpolate(mask, size=(64, 64), mode="bilinear", align_corners=False)[0, 0]
            same(prediction[clip, frame], mask.sigmoid())


@torch.no_grad()
def test_images_are_enlarged_but_masks_and_predictions_are_not() -> None:
    small = truthful()
    images = F.interpolate(small.images.flatten(0, 1), (128, 128), mode="bilinear", align_corners=False)
    large = Batch(images.unflatten(0, (2, 3)), small.audio)
    model, plain = build(input_scale=2), build()
    output, expected = model(small), plain(large)
    same(output.mask_logits, expected.mask_logits)
    same(output.reference_logits, expected.reference_logits)
    mask = expected.best()[2][:, :, 0]  # (2,3,8,8)
    same(model.predict(small), F.interpolate(mask, (64, 64), mode="bilinear", align_corners=False).sigmoid())
    # Matching and losses compare masks at the size of the ground truth.
    totals = dict.fromkeys(("reference", "dice", "focal", "bce"), 0.0)
    for clip in range(2):
        targets = Targets.of(small.ground_truth()[clip], 2, plain.options)
        assert targets.masks.shape == (1, 3, 64, 64)
        for layer in (*expected.earlier, expected):
            terms = clip_losses(layer.reference_logits[clip], layer.mask_logits[clip], targets, plain.options)
            for name, value in weigh(terms, plain.options).items():
                totals[name] += value.item() / 2
    losses = model.losses(small)
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(totals, rel=1e-5)
    padded = model(batch(valid=torch.zeros(2, 3, dtype=torch.bool)))
    assert padded.mask_logits.shape == output.mask_logits.shape


def test_sides_that_are_no_multiples_of_32_are_refused() -> None:
    with pytest.raises(UsageError, match=r"multiples of 32, got 50x64 pixels.*image_size"):
        build()(batch(size=(64, 50)))
    with pytest.raises(UsageError, match=r"multiples of 16, got 50x48 pixels.*image_size"):
        build(input_scale=2)(batch(size=(48, 50)))


@TOKENS
@torch.no_grad()
def test_clips_are_independent_and_one_frame_is_enough(tokens: str) -> None:
    model, clips = build(audio_tokens=tokens), batch()
    together = model(clips)
    alone = model(Batch(clips.images[1:], clips.audio[1:]))
    same(alone.mask_logits, together.mask_logits[1:])
    same(alone.reference_logits, together.reference_logits[1:])
    single = model(Batch(clips.images[:, :1], clips.audio[:, :1]))
    assert single.mask_logits.shape == (2, 1, 6, 4, 4)


@torch.no_grad()
def test_another_frame_changes_the_map_but_not_the_queries() -> None:
    model, clips = build(), batch()
    images = clips.images.clone()
    images[:, 2] *= -1
    before, after = model(clips), model(Batch(images, clips.audio))
    same(after.reference_logits[:, :2], before.reference_logits[:, :2])
    assert (after.mask_logits - before.mask_logits)[:, :2].abs().max() > 1e-4
    assert (after.reference_logits - before.reference_logits)[:, 2].abs().max() > 1e-4


@torch.no_grad()
def test_the_order_of_the_audio_matters_only_with_one_token_per_frame() -> None:
    clips = batch()
    turned = clips.with_audio(clips.audio.flip(1))
    released, own = build(), build(audio_tokens="frame")
    same(released(turned).mask_logits, released(clips).mask_logits)
    for model in (released, own):
        louder = model(clips.with_audio(-clips.audio))
        assert (louder.mask_logits - model(clips).mask_logits).abs().max() > 1e-3
    change = own(turned).reference_logits - own(clips).reference_logits
    assert change[:, [0, 2]].abs().max() > 1e-4
    same(change[:, 1], torch.zeros_like(change[:, 1]))  # the middle one keeps its sound


@TOKENS
@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_a_padded_clip_equals_the_shorter_clip(tokens: str, training: bool) -> None:
    model = build(audio_tokens=tokens, dropout=0.0).train(training)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # where clips meet
            module.eval()
    valid = torch.tensor([[True, True, False], [False, True, False], [False, False, False]])
    clips = batch(clips=3)
    clips = Batch(clips.images, clips.audio, valid)
    clips.images[~valid] = float("nan")
    clips.audio[~valid] = float("nan")
    output, prediction = model(clips), model.predict(clips)
    for layer in (output, *output.earlier):
        assert not layer.mask_logits[~valid].any()
        assert not layer.reference_logits[~valid].any()
    assert not prediction[~valid].any()
    for clip in range(2):
        kept = valid[clip]
        alone = model(Batch(clips.images[clip : clip + 1, kept], clips.audio[clip : clip + 1, kept]))
        same(output.mask_logits[clip, kept], alone.mask_logits[0])
        same(output.reference_logits[clip, kept], alone.reference_logits[0])


@torch.no_grad()
def test_a_batch_without_valid_frames_is_zero() -> None:
    clips = batch(valid=torch.zeros(2, 3, dtype=torch.bool))
    model = build()
    assert model(clips).mask_logits.shape == (2, 3, 6, 4, 4)
    prediction = model.predict(clips)
    assert prediction.shape == (2, 3, 64, 64)
    assert not prediction.any()


@TOKENS
def test_every_parameter_has_a_gradient(tokens: str) -> None:
    model = build(audio_tokens=tokens).train()
    sum(model.losses(truthful()).values()).backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert idle == []
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name


def test_training_lowers_the_loss() -> None:
    model = build(dropout=0.0).train()
    clips = batch(frames=2, size=(32, 32))
    truth = torch.zeros(2, 2, 32, 32, dtype=torch.int64)
    truth[:, :, :16, :16] = 1
    clips = Batch(clips.images, clips.audio, masks=truth)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    totals = []
    for _ in range(12):
        total = torch.stack(list(model.losses(clips).values())).sum()
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        totals.append(total.item())
    assert min(totals[-3:]) < 0.75 * totals[0]


def test_mixed_precision_trains_and_is_close() -> None:
    model = build(dropout=0.0)
    plain = batch(frames=2, size=(32, 32))
    valid = torch.tensor([[True, False], [True, True]])
    clips = Batch(plain.images, plain.audio, valid, masks=masks(plain))
    exact = model.losses(clips)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.losses(clips)
        prediction = model.predict(clips)
    for name, value in losses.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact[name].item(), rel=0.1)
    assert prediction.dtype == torch.float32
    sum(losses.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@torch.no_grad()
def test_losses_use_annotated_frames_only() -> None:
    model = build()
    annotated = torch.zeros(2, 3, dtype=torch.bool)
    annotated[:, 0] = True
    clips = truthful(annotated=annotated)
    first = model.losses(clips)
    clips.masks[:, 1:] = 0
    assert model.losses(clips) == first
    clips.masks[:, 0, :32] = 0
    changed = model.losses(clips)
    assert all(changed[name] != first[name] for name in ("dice", "focal", "bce"))


def test_losses_without_annotated_frames_are_zero_and_have_gradients() -> None:
    model = build()
    losses = model.losses(truthful(annotated=torch.zeros(2, 3, dtype=torch.bool)))
    assert {name: value.item() for name, value in losses.items()} == dict.fromkeys(
        ("reference", "dice", "focal", "bce"), 0.0
    )
    sum(losses.values()).backward()
    assert model.reference_head.weight.grad is not None


@torch.no_grad()
def test_losses_are_means_over_clips_with_annotated_frames() -> None:
    model, clips = build(), truthful()
    both = model.losses(clips)
    ones = [
        model.losses(Batch(*(part[index : index + 1] for part in (clips.images, clips.audio)), masks=truth))
        for index, truth in enumerate(clips.masks.split(1))
    ]
    for name, value in both.items():
        same(value, (ones[0][name] + ones[1][name]) / 2)
    only = truthful(annotated=torch.tensor([[False] * 3, [True] * 3]))
    for name, value in model.losses(only).items():
        same(value, ones[1][name])


@torch.no_grad()
def test_weights_scale_their_terms() -> None:
    clips = truthful()
    plain = build().losses(clips)
    scaled = build(reference_weight=2, dice_weight=0, focal_weight=10, bce_weight=1).losses(clips)
    for name, factor in {"reference": 2, "dice": 0, "focal": 2, "bce": 0.25}.items():
        same(scaled[name], factor * plain[name])
