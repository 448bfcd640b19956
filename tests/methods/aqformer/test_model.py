"""AQFormer: a small network with padded frames, all tasks and precisions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from avsbench_methods.aqformer.loss import (
    mask_losses,
    similarity_loss,
)
from avsbench_methods.aqformer.model import mask_products
from torch import Tensor
from torch.testing import assert_close

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.tasks import AVSS, MS3, S4, Task
from avsbench_harness.testing.seeded import seeded_input

from .helpers import TABLE_2, batch, build


def supervised(task: Task = MS3, clips: int = 2, frames: int = 3, **fields: Any) -> Batch:
    plain = batch(clips, frames, **fields)
    draw = torch.Generator().manual_seed(3)
    blocks = torch.randint(max(2, task.channels), (clips, frames, 4, 4), generator=draw)
    return replace(plain, masks=blocks.repeat_interleave(16, 2).repeat_interleave(16, 3))


def test_audio_is_fused_into_the_coarser_scales_only() -> None:
    """The largest map is not fused (section 3.2); it receives the audio through the top-down path."""
    model = build()
    assert [fusion.content.in_features for fusion in model.pixel_decoder.fusions] == list(
        model.backbone.channels[:0:-1][::-1]
    )


def test_abti_mixes_frames_at_the_selected_scales() -> None:
    clips, other = batch(clips=1), batch(clips=1, seed=9)
    changed = Batch(
        torch.cat([clips.images[:, :2], other.images[:, 2:]], dim=1),
        torch.cat([clips.audio[:, :2], other.audio[:, 2:]], dim=1),
    )
    for abti in ([], [1, 2, 3], [4], [1, 2, 3, 4]):
        model = build(abti=abti)
        with torch.no_grad():
            one, two = model(clips).maps, model(changed).maps
        moved = [
            scale
            for scale, (before, after) in enumerate(zip(one, two, strict=True), start=1)
            if (before[:, :2] - after[:, :2]).abs().max() > 1e-6
        ]
        assert moved == abti


def test_masks_are_products_of_a_frames_embedding_with_its_own_pixels() -> None:
    embeddings = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])  # (1,2 frames,1,2)
    features = torch.tensor([[[[[1.0, 0.0]], [[0.0, 1.0]]], [[[2.0, 1.0]], [[1.0, 0.0]]]]])  # (1,2,2,1,2)
    expected = torch.tensor([[[[[1.0, 2.0]]], [[[5.0, 3.0]]]]])
    assert torch.equal(mask_products(embeddings, features), expected)


@pytest.mark.parametrize("output_norm", [True, False])
def test_the_prediction_is_the_last_layers_mask(output_norm: bool) -> None:
    model, clips = build(output_norm=output_norm), batch()
    with torch.no_grad():
        output, prediction = model(clips), model.predict(clips)
    expected = torch.einsum("btc,btcxy->btxy", output.embeddings[:, :, -1], output.maps[3])
    if output_norm:
        expected = expected / 8  # sqrt(64)
    assert_close(output.mask_logits[:, :, -1], expected, rtol=1e-4, atol=1e-4)
    full = F.interpolate(expected, size=(64, 64), mode="bilinear", align_corners=False).sigmoid()
    assert_close(prediction, full, rtol=1e-4, atol=1e-4)


def test_similarity_compares_every_layer_with_its_scale_under_the_final_mask() -> None:
    model = build(stages=2)
    with torch.no_grad():
        output = model(batch())
        pooled = model._pooled(output)
    final = output.mask_logits[:, :, -1].sigmoid()
    for layer in range(6):
        maps = output.maps[layer % 3]
        small = F.interpolate(final, size=maps.shape[-2:], mode="area")
        assert_close(pooled[:, :, layer], (maps * small[:, :, None]).mean(dim=(3, 4)), rtol=1e-4, atol=1e-6)


def test_the_similarity_loss_has_gradients_for_all_inputs() -> None:
    """Embeddings, features and masks have gradients: the paper has no stop-gradient."""
    model = build()
    output = model(batch())
    tensors = [output.embeddings, output.mask_logits, *output.maps[:3]]
    everything = torch.ones(2, 3, dtype=torch.bool)
    loss = similarity_loss(output.embeddings, model._pooled(output), everything, "mean")
    for gradient in torch.autograd.grad(loss, tensors):
        assert gradient.abs().max() > 0


def test_losses_average_over_frames_and_carry_their_weights() -> None:
    logits, masks = seeded_input(1, "logits", (3, 2, 4, 4)), torch.rand(3, 8, 8) > 0.5
    single = [mask_losses(logits[i : i + 1], masks[i : i + 1]) for i in range(3)]
    for index in range(2):
        mean = torch.stack([terms[index] for terms in single]).mean()
        assert_close(mask_losses(logits, masks)[index], mean)
    weights = {"bce_weight": 2.0, "dice_weight": 3.0, "similarity_weight": 5.0, "class_weight": 7.0}
    with torch.no_grad():
        plain, weighted = (build(AVSS, **w).losses(supervised(AVSS)) for w in ({}, weights))
    assert list(plain) == ["mask_bce", "mask_dice", "similarity", "class"]
    for name, factor in zip(plain, weights.values(), strict=True):
        assert_close(weighted[name], factor * plain[name])


def test_initial_masks_are_not_saturated() -> None:
    """At the default width, in all layers, with and without the norm: logits of order 1."""
    for output_norm in (True, False):
        model = build(dim=256, output_norm=output_norm, similarity_loss=False)
        with torch.no_grad():
            logits = model(batch()).mask_logits
        assert 0.1 < logits.std() < 4, output_norm


def test_the_similarity_of_queries_is_logged() -> None:
    model, clips = build(), supervised()
    assert model.diagnostics() == {}
    with torch.no_grad():
        model.losses(clips)
        embeddings = model(clips).embeddings[:, :, -1]
    pairs = [(p, q) for p in range(3) for q in range(3) if p != q]
    cosines = [F.cosine_similarity(embeddings[:, p], embeddings[:, q], -1).mean() for p, q in pairs]
    assert model.diagnostics() == {
        "query_similarity": pytest.approx(float(torch.stack(cosines).mean()), abs=1e-5)
    }


def test_names_of_the_losses() -> None:
    with torch.no_grad():
        assert list(build().losses(supervised())) == ["mask_bce", "mask_dice", "similarity"]
        assert list(build(similarity_loss=False).losses(supervised())) == ["mask_bce", "mask_dice"]


@pytest.mark.parametrize("task", [S4, AVSS])
def test_mask_losses_use_annotated_frames_and_similarity_all_valid_frames(task: Task) -> None:
    model, clips = build(task), supervised(task)
    annotated = torch.zeros(2, 3, dtype=torch.bool)
    annotated[:, 0] = True

    def losses(truth: Tensor, annotated: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            return model.losses(replace(clips, masks=truth, annotated=annotated))

    truth = clips.ground_truth()
    elsewhere, there = truth.clone(), truth.clone()
    elsewhere[:, 1:] = 0
    there[:, 0, :32] = 0
    first = losses(truth, annotated)
    assert losses(elsewhere, annotated) == first
    supervision = [name for name in first if name != "similarity"]
    assert all(losses(there, annotated)[name] != first[name] for name in supervision)
    assert losses(there, torch.ones_like(annotated))["similarity"] == first["similarity"]
    nothing = losses(truth, torch.zeros_like(annotated))
    assert all(nothing[name] == 0 for name in supervision)
    assert nothing["similarity"] == first["similarity"] > 0


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        (S4, {}),
        (S4, {"query_frames": "own"}),
        (S4, {"queries": "vanilla"}),
        (S4, {"audio_softmax": "pixels"}),
        (AVSS, {}),
    ],
)
def test_a_clip_padded_to_ten_frames_equals_the_clip_of_five(task: Task, changes: dict[str, Any]) -> None:
    """Outputs, prediction and losses, also in training mode, with NaN in padded frames."""
    model = build(task, **changes).train()
    short = supervised(task, frames=5)
    nothing = batch(frames=5)
    padded = Batch(
        images=torch.cat([short.images, torch.full_like(nothing.images, float("nan"))], dim=1),
        audio=torch.cat([short.audio, torch.full_like(nothing.audio, float("nan"))], dim=1),
        valid=(torch.arange(10) < 5).expand(2, 10),
        masks=torch.cat([short.ground_truth(), torch.ones_like(short.ground_truth())], dim=1),
    )
    with torch.no_grad():
        for name, term in model.losses(padded).items():
            assert_close(term, model.losses(short)[name], rtol=1e-4, atol=1e-5, msg=name)
        one, two = model(padded), model(short)
        assert_close(one.mask_logits[:, :5], two.mask_logits, rtol=1e-3, atol=1e-4)
        assert_close(one.embeddings[:, :5], two.embeddings, rtol=1e-3, atol=1e-4)
        for level in (one.mask_logits, one.embeddings, *one.maps):
            assert not level[:, 5:].any()
        if task is AVSS:
            assert not one.class_logits[:, 5:].any()
        assert_close(model.predict(padded)[:, :5], model.predict(short), rtol=1e-3, atol=1e-4)
        assert not model.predict(padded)[:, 5:].any()


@pytest.mark.parametrize("queries", ["audio", "vanilla"])
def test_padding_in_the_middle_equals_the_shorter_clip(queries: str) -> None:
    model, clips = build(queries=queries), batch(clips=1, frames=4)
    there = [0, 2, 3]
    valid = torch.tensor([[index in there for index in range(4)]])
    with torch.no_grad():
        gaps = model.predict(replace(clips, valid=valid))[:, there]
        whole = model.predict(Batch(clips.images[:, there], clips.audio[:, there]))
    assert_close(gaps, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", [S4, AVSS])
def test_a_batch_without_valid_frames_has_zero_outputs_and_losses(task: Task) -> None:
    model = build(task).train()
    clips = replace(supervised(task), valid=torch.zeros(2, 3, dtype=torch.bool))
    assert not model.predict(clips).any()
    losses = model.losses(clips)
    assert all(term == 0 for term in losses.values())
    torch.stack(list(losses.values())).sum().backward()


@pytest.mark.parametrize("task", [MS3, AVSS])
@pytest.mark.parametrize(("frames", "size"), [(1, (64, 64)), (10, (32, 96)), (2, (128, 64))])
def test_any_number_of_frames_and_any_sides(task: Task, frames: int, size: tuple[int, int]) -> None:
    model, clips = build(task), batch(clips=1, frames=frames, size=size)
    with torch.no_grad():
        output, prediction = model(clips), model.predict(clips)
    assert output.mask_logits.shape == (1, frames, 6, size[0] // 4, size[1] // 4)
    classes = (71,) if task is AVSS else ()
    assert prediction.shape == (1, frames, *classes, *size)
    assert prediction.isfinite().all()


def test_sides_that_are_no_multiples_of_32_are_refused() -> None:
    with pytest.raises(UsageError, match=r"AQFormer needs .* multiples of 32, got 50x64 pixels"):
        build()(batch(size=(64, 50)))


def test_losses_of_silent_clips_and_of_all_classes_are_finite() -> None:
    model, clips = build(AVSS), supervised(AVSS)
    everything = torch.arange(2 * 3 * 64 * 64).view(2, 3, 64, 64) % 71
    silent = torch.zeros_like(everything)
    for masks in (everything, silent):
        with torch.no_grad():
            losses = model.losses(replace(clips, masks=masks).with_audio(torch.zeros_like(clips.audio)))
        assert all(term.isfinite() for term in losses.values())


def test_a_pixel_has_a_class_where_it_sounds() -> None:
    model, clips = build(AVSS), batch()
    with torch.no_grad():
        output, scores = model(clips), model.predict(clips)
        sounding = F.interpolate(output.mask_logits[:, :, -1], size=(64, 64), mode="bilinear") > 0
        classes = F.interpolate(output.class_logits.flatten(0, 1), size=(64, 64), mode="bilinear")
    expected = (classes.argmax(dim=1).view(sounding.shape) + 1) * sounding
    agree = scores.argmax(dim=2) == expected
    assert agree.float().mean() > 0.999  # rounding decides where the logit is 0
    assert 0.01 < sounding.float().mean() < 0.99


def test_class_logits_are_equation_6_with_a_weight_per_channel() -> None:
    model = build(AVSS)
    with torch.no_grad():
        output = model(batch())
        gated = output.embeddings[:, :, -1, :, None, None] * output.maps[3]  # (B,T,dim,h,w)
        expected = model.class_head(gated.movedim(2, -1) / 8).movedim(-1, 2)
    assert_close(output.class_logits, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("row", ["2a Vanilla Object Query", "2a Audio Query†", "2b both"])
@pytest.mark.parametrize("task", [MS3, AVSS])
def test_every_parameter_has_a_gradient(task: Task, row: str) -> None:
    model = build(task, **{"audio_softmax": "pixels", **TABLE_2[row]}).train()
    torch.stack(list(model.losses(supervised(task)).values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.slow  # half precision takes seconds on some CPUs
def test_half_precision_is_close() -> None:
    model, clips = build(stages=1), supervised(frames=2)
    with torch.no_grad():
        plain = model.losses(clips)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model.losses(clips)
            assert model.predict(clips).dtype == torch.float32
    for name, term in half.items():
        assert_close(term.float(), plain[name], rtol=0.1, atol=0.1, msg=name)


def test_weights_of_s4_fit_ms3() -> None:
    build(MS3).load_state_dict(build(S4).state_dict())
