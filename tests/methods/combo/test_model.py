"""COMBO as released: behaviour of a small network."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avsbench_methods.combo.model import EMBEDDINGS, ComboModel, semantic_scores

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.tasks import AVSS, S4, Task

from .helpers import batch, build, without_memory


def masks(like: Batch, classes: int = 2) -> torch.Tensor:
    clips, frames, height, width = like.shape
    return torch.randint(classes, (clips, frames, height, width), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("task", [S4, AVSS])
@pytest.mark.parametrize(("frames", "size"), [(1, (32, 32)), (4, (64, 96))])
def test_shapes(task: Task, frames: int, size: tuple[int, int]) -> None:
    model, clips = build(task), batch(frames=frames, size=size)
    height, width = size
    with torch.no_grad():
        output, prediction = model(clips), model.predict(clips)
    classes = 71 if task is AVSS else 2
    assert output.class_logits.shape == (2, frames, 6, classes + 1)
    assert output.mask_logits.shape == (2, frames, 6, height // 4, width // 4)
    assert prediction.shape == (2, frames, *((71,) if task is AVSS else ()), height, width)
    assert prediction.min() >= 0
    assert prediction.max() <= (6 if task is AVSS else 1)


def test_sides_that_are_no_multiples_of_32_are_refused() -> None:
    with pytest.raises(UsageError, match=r"multiples of 32, got 50x64 pixels.*image_size"):
        build()(batch(size=(64, 50)))


def test_a_batch_without_maskiges_is_refused_unless_they_are_disabled() -> None:
    bare = replace(batch(), maskige=None)
    with pytest.raises(UsageError, match=r"`avsb data maskige`.*`use_maskige: false`"):
        build()(bare)
    model = build(use_maskige=False)
    with torch.no_grad():
        assert torch.equal(model(bare).mask_logits, model(batch()).mask_logits)
    assert [name for name in model.state_dict() if "maskige" in name or "channel_weights" in name] == []


@pytest.mark.parametrize("part", ["maskige", "audio"])
def test_every_input_changes_the_masks(part: str) -> None:
    model, clips = build(), batch()
    with torch.no_grad():
        model.fusion.audio_gamma.fill_(1)
        change = model(clips).mask_logits - model(replace(clips, **{part: -getattr(clips, part)})).mask_logits
    assert change.abs().max() > 1e-3


def test_a_shared_encoder_is_smaller_and_differs() -> None:
    separate, shared = build(), build(shared_encoder=True)
    size = sum(parameter.numel() for parameter in separate.backbone.image.parameters())
    counts = [sum(p.numel() for p in model.parameters()) for model in (separate, shared)]
    assert counts[0] - counts[1] == size
    shared.load_state_dict(
        {name: value for name, value in separate.state_dict().items() if "backbone.maskige" not in name}
    )
    with torch.no_grad():
        change = separate(batch()).mask_logits - shared(batch()).mask_logits
        assert separate.backbone.maskige is not None
        separate.backbone.maskige.load_state_dict(shared.backbone.image.state_dict())
        torch.testing.assert_close(separate(batch()).mask_logits, shared(batch()).mask_logits)
    assert change.abs().max() > 1e-4


def test_only_scrambled_audio_makes_frames_depend_on_each_other() -> None:
    clips = batch()
    for pairing, frames_meet in (("own", False), ("scrambled", True)):
        model = build(audio_pairing=pairing)
        with torch.no_grad():
            model.audio_queries.mlp[0].weight.mul_(10)
            together = model(clips).class_logits
            alone = model(Batch(clips.images[1:], clips.audio[1:], maskige=clips.maskige[1:])).class_logits
        difference = (together[1:] - alone).abs().max()
        assert (difference > 1e-3) == frames_meet
        if not frames_meet:
            assert difference < 1e-4


@pytest.mark.parametrize("pairing", ["own", "scrambled"])
def test_predictions_do_not_depend_on_the_batch(pairing: str) -> None:
    model, clips = build(audio_pairing=pairing), batch()
    with torch.no_grad():
        together = model.predict(clips)
        for clip in (0, 1):
            part = slice(clip, clip + 1)
            alone = model.predict(
                Batch(clips.images[part], clips.audio[part], maskige=clips.maskige[part])  # type: ignore[index]
            )
            torch.testing.assert_close(together[part], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("task", [S4, AVSS])
@pytest.mark.parametrize("training", [False, True])
def test_padded_frames_are_zero_and_change_nothing(task: Task, training: bool) -> None:
    model = build(task, fusion_dropout=0.0, audio_pairing="own").train(training)
    valid = torch.tensor([[True, True, False], [True, False, False]])
    clips = batch(valid=valid)
    clips.images[~valid] = float("nan")
    assert clips.maskige is not None
    clips.maskige[~valid] = float("nan")
    with torch.no_grad():
        output, prediction, whole = model(clips), model.predict(clips), model(batch())
    for found, expected in (
        (output.class_logits, whole.class_logits),
        (output.mask_logits, whole.mask_logits),
    ):
        assert not found[~valid].any()
        torch.testing.assert_close(found[valid], expected[valid], rtol=0, atol=1e-4)
    assert not prediction[~valid].any()


def test_a_batch_without_valid_frames_is_zero() -> None:
    clips = batch(
        valid=torch.zeros(2, 3, dtype=torch.bool), masks=torch.zeros(2, 3, 64, 64, dtype=torch.long)
    )
    with torch.no_grad():
        prediction, losses = build().predict(clips), build().losses(clips)
    assert prediction.shape == (2, 3, 64, 64)
    assert not prediction.any()
    assert not any(losses.values())


@pytest.mark.parametrize("task", [S4, AVSS])
def test_every_parameter_has_a_gradient(task: Task) -> None:
    model = build(task).train()
    clips = batch()
    clips = replace(clips, masks=masks(clips, 71 if task is AVSS else 2))
    sum(model.losses(clips).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.slow
def test_the_loss_falls_and_training_is_reproducible() -> None:
    def train() -> list[float]:
        model = build(fusion_dropout=0.0).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        clips = batch(clips=1, frames=2)
        truth = torch.zeros(1, 2, 64, 64, dtype=torch.long)
        truth[..., :32] = 1
        history = []
        for step in range(10):
            torch.manual_seed(step)
            loss = torch.stack(list(model.losses(replace(clips, masks=truth)).values())).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(float(loss.detach()))
        return history

    first = train()
    assert first[-1] < 0.8 * first[0]
    assert train() == first


def test_class_and_mask_losses_use_annotated_frames_only() -> None:
    model, clips = build(), batch()
    annotated = torch.zeros(2, 3, dtype=torch.bool)
    annotated[:, 0] = True
    truth = masks(clips)

    def losses(truth: torch.Tensor) -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        with torch.no_grad():
            return model.losses(replace(clips, masks=truth, annotated=annotated))

    first = losses(truth)
    elsewhere, there = truth.clone(), truth.clone()
    elsewhere[:, 1:] = 0
    there[:, 0] = 0
    assert losses(elsewhere) == first
    changed = losses(there)
    assert all(changed[name] != first[name] for name in ("class", "mask", "dice"))
    assert changed["consistency"] == first["consistency"]
    assert first["consistency"] > 0


def test_without_annotated_frames_only_consistency_is_left() -> None:
    clips = batch()
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    with torch.no_grad():
        losses = build().losses(replace(clips, masks=masks(clips), annotated=nothing))
    assert {name for name, value in losses.items() if value} == {"consistency"}


def test_weights_of_the_losses() -> None:
    clips = batch()
    clips = replace(clips, masks=masks(clips))

    def losses(**options: Any) -> dict[str, torch.Tensor]:
        model = build(**options)
        torch.manual_seed(1)
        with torch.no_grad():
            return model.losses(clips)

    light, heavy = losses(), losses(consistency_weight=20.0)
    torch.testing.assert_close(2 * light["consistency"], heavy["consistency"])
    assert light["class"] == heavy["class"]


def test_scores_by_hand() -> None:
    classes = torch.tensor([[[2.0, 1.0, 0.0], [0.0, 0.0, 5.0]]])
    drawn = torch.tensor([[[[3.0]], [[-1.0]]]])
    first, second = classes.softmax(dim=-1)[0]
    expected = first[:2] * torch.sigmoid(torch.tensor(3.0)) + second[:2] * torch.sigmoid(torch.tensor(-1.0))
    scores = semantic_scores(classes, drawn, (2, 3))
    torch.testing.assert_close(scores[0, :, 1, 2], expected)
    assert scores.shape == (1, 2, 2, 3)


def test_groups_have_the_published_decay() -> None:
    model = build(backbone="pvt_v2_b0")
    recipe = SimpleNamespace(optimizer=SimpleNamespace(backbone_lr_scale=0.1))
    groups = {group.name: group for group in model.param_groups(recipe)}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    grouped = [names[id(parameter)] for group in groups.values() for parameter in group.params]
    assert sorted(grouped) == sorted(names.values())
    assert set(EMBEDDINGS) <= set(names.values())
    assert {name: (group.lr_scale, group.weight_decay) for name, group in groups.items()} == {
        "backbone": (0.1, None),
        "backbone without decay": (0.1, 0.0),
        "head": (1.0, None),
        "head without decay": (1.0, 0.0),
    }
    decayed = {names[id(parameter)] for parameter in groups["head"].params}
    assert {"fusion.visual_gamma", "fusion.audio_gamma", "pixel_decoder.level_embedding"} <= decayed
    plain = {names[id(parameter)] for parameter in groups["head without decay"].params}
    assert {*EMBEDDINGS, "decoder.norm.weight", "pixel_decoder.lateral.1.bias"} <= plain
    assert any(".norm1." in names[id(p)] for p in groups["backbone without decay"].params)


def test_pvt_drops_paths_in_training_as_released() -> None:
    def rate(model: ComboModel) -> float:
        return max((getattr(module, "drop_prob", None) or 0.0) for module in model.backbone.modules())

    assert rate(without_memory("pvt", "s4")) == pytest.approx(0.1)
    assert rate(build(backbone="pvt_v2_b0", drop_path_rate=0.3)) == pytest.approx(0.3)
