"""AVSegFormer as its paper describes it: the equations, the rows of its ablation tables, its recipe."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from avsbench_methods.avsegformer import AVSegFormer
from avsbench_methods.avsegformer.loss import class_dice_loss, segmentation_loss
from avsbench_methods.avsegformer.masks import LinearClassifier, MaskHead
from avsbench_methods.avsegformer.mixers import ChannelAttentionMixer, CrossAttentionMixer
from avsbench_methods.avsegformer.model import AVSegFormerModel
from avsbench_methods.avsegformer.options import Options
from avsbench_methods.avsegformer.reformer import MaskReformer
from torch import Tensor

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.resolve import resolve
from avsbench_harness.tasks import AVSS, MS3, S4, TASKS, Task

SMALL: dict[str, Any] = {
    "queries": 6, "dim": 32, "encoder_layers": 1, "decoder_layers": 2, "ffn_dim": 32, "mask_mlp_dim": 32,
}  # fmt: skip

#: Rows of the paper's tables 2a to 2d.
ROWS: dict[str, dict[str, Any]] = {
    "2a, 1 query": {"queries": 1},
    "2a, 100 queries": {"queries": 100},
    "2a, 200 queries": {"queries": 200},
    "default": {},
    "2b, no learnable queries": {"learnable_queries": False},
    "2c, no mixer": {"mixer": "none"},
    "2c, CRA": {"mixer": "cross_attention"},
    "2d, no reformer": {"mask_reformer": "none"},
    "2d, AR": {"mask_reformer": "attention_only"},
}


def build(task: Task = S4, variant: str = "paper", **options: Any) -> AVSegFormerModel:
    torch.manual_seed(0)
    model = AVSegFormer().build(task, "resnet10t", variant=variant, **{**SMALL, **options})
    assert isinstance(model, AVSegFormerModel)
    return model.eval()


def clips(task: Task = S4, clips: int = 1, frames: int = 2, side: int = 64, seed: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    classes = task.channels if task.semantic else 2
    return Batch(
        images=torch.randn(clips, frames, 3, side, side, generator=draw),
        audio=torch.rand(clips, frames, 128, generator=draw),
        masks=torch.randint(classes, (clips, frames, side, side), generator=draw),
    )


def randomise(module: torch.nn.Module, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) / max(1, parameter.shape[-1]) ** 0.5)


@pytest.mark.parametrize("seed", range(2))
def test_channel_attention_mixer_is_equation_2(seed: int) -> None:
    mixer = ChannelAttentionMixer(8, sigmoid=False, residual=True, heads=2).double()
    randomise(mixer, seed)
    draw = torch.Generator().manual_seed(seed)
    feature = torch.randn(2, 5, 8, generator=draw, dtype=torch.float64)
    audio = torch.randn(2, 8, generator=draw, dtype=torch.float64)
    expected = torch.empty_like(feature)
    for frame in range(2):
        weights = []
        for head in (slice(0, 4), slice(4, 8)):
            query = mixer.q_proj.weight[head] @ audio[frame]
            keys = feature[frame] @ mixer.kv_proj.weight[:8][head].T
            values = feature[frame] @ mixer.kv_proj.weight[8:][head].T
            weights.append((keys @ query / 4**0.5).softmax(0) @ values)
        omega = mixer.proj(torch.cat(weights))
        expected[frame] = feature[frame] + feature[frame] * omega
    torch.testing.assert_close(mixer(feature, audio), expected)
    mixer.residual, mixer.sigmoid = False, True
    released = (
        feature
        * mixer.proj.weight.new_tensor(
            torch.stack([((expected[n] - feature[n]) / feature[n]).mean(0) for n in range(2)]).tolist()
        ).sigmoid()[:, None]
    )
    torch.testing.assert_close(mixer(feature, audio), released)


def test_cross_attention_mixer_adds_one_vector_per_frame_that_depends_on_the_sound() -> None:
    mixer = CrossAttentionMixer(16)
    feature, audio = torch.randn(2, 5, 16), torch.randn(2, 16)
    added = mixer(feature, audio) - feature
    torch.testing.assert_close(added, added[:, :1].expand_as(added))
    value = audio @ mixer.attention.in_proj.weight[32:].T
    torch.testing.assert_close(added[:, 0], mixer.attention.out_proj(value))
    assert not torch.allclose(added[0], added[1])


def test_mask_head_is_equation_3() -> None:
    torch.manual_seed(1)
    head = MaskHead(Options.of({"queries": 3, "dim": 32, "mask_mlp_dim": 7}, S4, "paper"), 1).double()
    queries, feature = torch.randn(2, 3, 32).double(), torch.randn(2, 20, 32).double()
    answers = torch.einsum("nqc,npc->npq", queries, feature)
    mixed = feature + head.mlp_out(head.mlp_hidden(head.mlp_in(answers).relu()).relu())
    assert isinstance(head.classifier, LinearClassifier)
    small = (mixed @ head.classifier.classify.weight[0, :, 0, 0] + head.classifier.classify.bias).view(
        2, 1, 4, 5
    )
    expected = F.interpolate(small, size=(16, 20), mode="bilinear", align_corners=False)
    torch.testing.assert_close(head(queries, feature, (4, 5)), expected)


@pytest.mark.parametrize("kind", ["attention_only", "query_mixed"])
@pytest.mark.parametrize("look", ["linear", "convolutions"])
def test_mask_reformer_feeds_attention_through_a_pyramid(kind: str, look: str) -> None:
    torch.manual_seed(2)
    options = Options.of({"queries": 3, "dim": 32, "mask_reformer": kind, "classifier": look}, MS3, "paper")
    reformer = MaskReformer(options, 1).double()
    shapes = [(8, 4), (4, 2), (2, 1)]
    attention, queries = torch.rand(2, 3, 42).double(), torch.randn(2, 3, 32).double()

    pixels = torch.einsum("nqs,nqc->ncs", attention, queries) if kind == "query_mixed" else attention
    maps = pixels[:, :, 40:].reshape(2, -1, 2, 1)
    levels = (pixels[:, :, 32:40].reshape(2, -1, 4, 2), pixels[:, :, :32].reshape(2, -1, 8, 4), 0.0)
    for step, level in zip(reformer.steps, levels, strict=True):
        maps = step(F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)) + level
    expected = reformer.classifier(maps)
    assert expected.shape == (2, 1, 64, 32)
    torch.testing.assert_close(reformer(attention, queries, shapes), expected)


def test_intermediate_masks_come_from_every_layers_own_attention_and_answers() -> None:
    model, batch = build(), clips(frames=1)
    seen: list[tuple[Tensor, Tensor]] = []
    assert model.mask_reformer is not None
    hook = model.mask_reformer.register_forward_pre_hook(lambda _, given: seen.append(given[:2]))
    answers: list[Tensor] = []
    norms = [
        layer.norm3.register_forward_hook(lambda *a: answers.append(a[2])) for layer in model.decoder.layers
    ]
    with torch.no_grad():
        model.losses(batch)
    for handle in (hook, *norms):
        handle.remove()
    assert len(seen) == SMALL["decoder_layers"]
    for (attention, queries), answer in zip(seen, answers, strict=True):
        assert attention.shape == (1, SMALL["queries"], 8 * 8 + 4 * 4 + 2 * 2)
        torch.testing.assert_close(attention.sum(2), torch.ones(1, SMALL["queries"]))
        assert torch.equal(queries, answer)
    assert not torch.allclose(seen[0][0], seen[1][0])


def test_total_loss_is_equation_4() -> None:
    batch = clips(frames=1)
    made: list[Tensor] = []
    for weight in (0.1, 0.4):
        model = build(inter_weight=weight)
        assert model.mask_reformer is not None
        made.clear()
        model.mask_reformer.register_forward_hook(lambda *a: made.append(a[2]))
        with torch.no_grad():
            losses = model.losses(batch)
            logits = model(batch).logits[0]
        assert set(losses) == {"iou", "inter"}
        assert len(made) == 2, "no intermediate masks are made where no loss asks for them"
        truth = batch.ground_truth()[0].double()

        def dice(logits: Tensor, truth: Tensor = truth) -> Tensor:
            p = logits[:, 0].double().sigmoid()
            extent = (p**2).sum((1, 2)) + (truth**2).sum((1, 2)) + 2e-3
            return (1 - 2 * (p * truth).sum((1, 2)) / extent).mean()

        torch.testing.assert_close(losses["iou"].double(), dice(logits), rtol=1e-5, atol=0)
        expected = weight * (dice(made[0]) + dice(made[1]))
        torch.testing.assert_close(losses["inter"].double(), expected, rtol=1e-5, atol=0)


def test_dice_of_classes_by_hand() -> None:
    # Two pixels, three classes; the frame shows classes 0 and 2.
    p = torch.tensor([[0.5, 0.2], [0.3, 0.2], [0.2, 0.6]], dtype=torch.float64)
    logits, truth = p.log()[None, :, None], torch.tensor([[[0, 2]]])
    found = class_dice_loss(logits, truth, epsilon=0.0)
    zero = 1 - 2 * 0.5 / (0.25 + 0.04 + 1)
    two = 1 - 2 * 0.6 / (0.04 + 0.36 + 1)
    assert float(found[0]) == pytest.approx((zero + two) / 2)
    assert float(segmentation_loss(logits, truth, "dice")) == pytest.approx((zero + two) / 2, abs=2e-3)


def test_audio_queries_repeat_the_sound() -> None:
    model, sound = build(), torch.randn(2, 32)
    assert model.decoder_queries is not None
    queries = model._queries(sound)
    torch.testing.assert_close(queries - model.decoder_queries, sound[:, None].expand(-1, 6, -1))
    torch.testing.assert_close(
        build(learnable_queries=False)._queries(sound), sound[:, None].expand(-1, 6, -1)
    )


@pytest.mark.parametrize("row", ROWS)
def test_rows_of_the_ablation_tables(row: str) -> None:
    model = build(**{"decoder_layers": 1, **ROWS[row]}).train()
    losses = model.losses(clips(frames=1))
    assert ("inter" in losses) == (row != "2d, no reformer")
    sum(losses.values()).backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert idle == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixer": "none", "mixer_residual": True}, "mixer_residual has no effect with mixer: none"),
        (
            {"mixer": "cross_attention", "mixer_sigmoid": True},
            "mixer_sigmoid has no effect with mixer: cross_attention",
        ),
        ({"generator_layers": 3}, "generator_layers has no effect with audio_queries: repeated"),
        ({"mask_channels": 64}, "mask_channels has no effect with classifier: linear"),
        ({"mask_reformer": "none", "inter_weight": 1}, "inter_weight has no effect with mask_reformer: none"),
        ({"inter_weight": 0}, "'inter_weight' is 0"),
        ({"mixer": "channel"}, "'mixer' is 'channel'"),
    ],
)
def test_options_without_effect_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(**options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_each_variant_can_be_had_from_the_other_by_options() -> None:
    paper = Options.of({}, S4, "paper")
    released = Options.of({}, S4, "released")
    differ = {name for name in Options.model_fields if getattr(paper, name) != getattr(released, name)}
    values = {name: getattr(paper, name) for name in differ}
    assert Options.of(values, S4, "released") == paper
    assert Options.of({}, AVSS, "released").loss == "cross_entropy"
    assert Options.of({}, AVSS, "paper").loss == "dice"


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("backbone", ["r50", "pvt"])
def test_recipe_follows_the_paper(task: Task, backbone: str) -> None:
    full = resolve(AVSegFormer(), task, backbone, variant="paper")
    epochs = {"s4": 30, "ms3": 60, "avss": 30}
    assert (full.image_size, full.batch_size, full.epochs) == (224, 4, epochs[task.name])
    assert (full.optimizer.name, full.optimizer.lr, full.schedule.name) == ("adamw", 2e-5, "constant")
    assert (full.backbone.freeze_epochs, full.train_fit) == (0, "squeeze")
    assert full.backbone.drop_path_rate == (0.1 if backbone == "pvt" else None)
    assert "released" in resolve(AVSegFormer(), task, backbone, variant="released").source
    Options.of(full.options, task, "paper")


@pytest.mark.parametrize("variant", ["released", "paper"])
@pytest.mark.parametrize("task", [S4, AVSS])
def test_only_annotated_frames_are_computed_and_nothing_changes(variant: str, task: Task) -> None:
    model, batch = build(task, variant), clips(task, clips=2, frames=3)
    annotated = torch.zeros(2, 3, dtype=torch.bool)
    annotated[:, 0] = True
    seen: list[int] = []
    model.encoder.register_forward_hook(lambda *a: seen.append(len(a[2])))
    few = model.losses(Batch(batch.images, batch.audio, masks=batch.masks, annotated=annotated))
    first = Batch(batch.images[:, :1], batch.audio[:, :1], masks=batch.ground_truth()[:, :1])
    torch.testing.assert_close(few, model.losses(first))
    assert sum(seen) == 4


def test_batch_norms_in_training_see_every_frame() -> None:
    batch, annotated = clips(frames=3), torch.tensor([[True, False, False]])
    means = []
    for frames in (annotated, None):
        model = build(dropout=0.0).train()
        model.losses(Batch(batch.images, batch.audio, masks=batch.masks, annotated=frames))
        means.append(torch.cat([b for n, b in model.backbone.named_buffers() if n.endswith("running_mean")]))
    torch.testing.assert_close(means[0], means[1])


@pytest.mark.parametrize("variant", ["released", "paper"])
@pytest.mark.parametrize("task", [S4, AVSS])
def test_nothing_to_learn_from_is_a_loss_of_zero_that_can_be_stepped_on(variant: str, task: Task) -> None:
    model, batch = build(task, variant).train(), clips(task)
    missing = torch.zeros(1, 2, dtype=torch.bool)
    for marks in ({"valid": missing}, {"annotated": missing}):
        losses = model.losses(Batch(batch.images, batch.audio, masks=batch.masks, **marks))
        assert all(float(term.detach()) == 0 for term in losses.values())
        sum(losses.values()).backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("variant", ["released", "paper"])
@pytest.mark.parametrize(("frames", "side"), [(1, 64), (10, 32), (1, 448), (1, 96)])
def test_batches_of_any_length_and_size(variant: str, frames: int, side: int) -> None:
    model = build(variant=variant, dim=64)
    with torch.no_grad():
        assert model.predict(clips(frames=frames, side=side)).shape == (1, frames, side, side)
    with pytest.raises(UsageError, match=r"multiples of 32, got 112x112 pixels.*image_size") as caught:
        model.losses(clips(frames=1, side=112))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("variant", ["released", "paper"])
def test_silent_frames_and_all_classes_at_once(variant: str) -> None:
    batch = clips(AVSS, frames=1)
    masks = (torch.arange(64 * 64) % 71).view(1, 1, 64, 64)
    silent = torch.zeros_like(masks)
    for truth, sound in ((masks, batch.audio), (silent, torch.zeros_like(batch.audio))):
        model = build(AVSS, variant).train()
        losses = model.losses(Batch(batch.images, sound, masks=truth))
        sum(losses.values()).backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
        assert all(float(term.detach()) > 0 for term in losses.values())
    losses = build(S4, variant).losses(Batch(batch.images, batch.audio * 0, masks=silent))
    assert float(losses["iou"].detach()) == pytest.approx(1)


@pytest.mark.parametrize("row", ["default", "2c, CRA", "2d, AR"])
def test_a_few_steps_lower_the_loss(row: str) -> None:
    model, batch = build(dropout=0.0, **ROWS[row]).train(), clips(frames=1)
    square = torch.zeros_like(batch.ground_truth())
    square[..., 16:48, 16:48] = 1
    batch = Batch(batch.images, batch.audio, masks=square)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    totals = []
    for _ in range(8):
        total = torch.stack(list(model.losses(batch).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.9 * totals[0], totals
