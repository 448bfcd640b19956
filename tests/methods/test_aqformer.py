"""AQFormer: its equations against plain formulas, behaviour of a small network, options, recipes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from avsbench_methods.aqformer import AQFormer
from avsbench_methods.aqformer.decoder import AudioQueriedDecoder, DecoderLayer
from avsbench_methods.aqformer.interaction import AudioBridgedInteraction
from avsbench_methods.aqformer.loss import (
    mask_losses,
    masked_average,
    similarity_loss,
    sounding_class_loss,
)
from avsbench_methods.aqformer.model import AQFormerModel, mask_products
from avsbench_methods.aqformer.options import Options
from avsbench_methods.aqformer.pixel_decoder import AudioFusion
from torch import Tensor, nn
from torch.testing import assert_close

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.nn.attention import Attention
from avsbench_harness.recipe.resolve import resolve
from avsbench_harness.tasks import AVSS, MS3, S4, TASKS, Task
from avsbench_harness.testing.seeded import seeded_input, seeded_state

CARD = Path(__file__).parents[2] / "methods" / "aqformer" / "README.md"
SMALL: dict[str, Any] = {
    "dim": 64, "heads": 4, "ffn_dim": 64, "encoder_layers": 1, "encoder_ffn_dim": 64, "stages": 2,
}  # fmt: skip
#: Rows of the paper's Table 2 and what they change; the card lists the same.
TABLE_2: dict[str, dict[str, Any]] = {
    "2a Vanilla Object Query": {"queries": "vanilla", "abti": [], "similarity_loss": False},
    "2a Audio Query†": {"query_frames": "own", "abti": [], "similarity_loss": False},
    "2a Audio Query": {"abti": [], "similarity_loss": False},
    "2b basic": {"abti": [], "similarity_loss": False},
    "2b + ABTI": {"similarity_loss": False},
    "2b + AVSim": {"abti": []},
    "2b both": {},
    "2c -": {"abti": []},
    "2c 1,2,3": {"abti": [1, 2, 3]},
    "2c 4": {"abti": [4]},
    "2c 1,2,3,4": {"abti": [1, 2, 3, 4]},
    "2d 1": {"stages": 1},
    "2d 2": {"stages": 2},
    "2d 3": {"stages": 3},
}


def options(task: Task = MS3, **changes: Any) -> Options:
    return Options.of({**SMALL, **changes}, task, "paper")


def build(task: Task = MS3, **changes: Any) -> AQFormerModel:
    torch.manual_seed(0)
    model = AQFormer().build(task, "resnet10t", variant="paper", **{**SMALL, **changes})
    assert isinstance(model, AQFormerModel)
    return model.eval()


def drawn(module: nn.Module, seed: int = 2) -> Any:
    """The module with weights and biases that are all of some size."""
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    module.load_state_dict(seeded_state(seed, shapes))
    return module.eval()


def batch(
    clips: int = 2, frames: int = 3, size: tuple[int, int] = (64, 64), seed: int = 1, **fields: Any
) -> Batch:
    images = seeded_input(seed, "images", (clips, frames, 3, *size))
    return Batch(images, seeded_input(seed, "audio", (clips, frames, 128)), **fields)


def supervised(task: Task = MS3, clips: int = 2, frames: int = 3, **fields: Any) -> Batch:
    plain = batch(clips, frames, **fields)
    draw = torch.Generator().manual_seed(3)
    blocks = torch.randint(max(2, task.channels), (clips, frames, 4, 4), generator=draw)
    return replace(plain, masks=blocks.repeat_interleave(16, 2).repeat_interleave(16, 3))


def reference_attention(ours: Attention, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """PyTorch's multi-head attention with the same weights, for one clip: (Q,dim), (S,dim), (S,dim)."""
    theirs = nn.MultiheadAttention(query.shape[-1], ours.heads)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.in_proj.weight,
            "in_proj_bias": ours.in_proj.bias,
            "out_proj.weight": ours.out_proj.weight,
            "out_proj.bias": ours.out_proj.bias,
        }
    )
    return theirs(query, keys, values, need_weights=False)[0]


# Equations 1 and 2


def test_the_softmax_over_one_audio_token_gives_every_pixel_its_frames_sound() -> None:
    fusion = drawn(AudioFusion(16, options()))
    visual = seeded_input(5, "V", (3, 16, 2, 3))
    audio = seeded_input(5, "A", (3, 128))
    fused = fusion(visual, audio)
    assert fused.shape == (3, 64, 2, 3)
    f_q, f_k = seeded_input(6, "q", (64, 16)), seeded_input(6, "k", (64, 128))
    for t in range(3):
        pixels = visual[t].flatten(1).T
        logits = (pixels @ f_q.T) @ (audio[t : t + 1] @ f_k.T).T / math.sqrt(64)  # (HW,1)
        attended = logits.softmax(dim=-1) @ fusion.value(audio[t : t + 1])
        expected = attended + fusion.content(pixels)
        assert_close(fused[t].flatten(1).T, expected, rtol=1e-4, atol=1e-5)


def test_the_softmax_over_pixels_is_equation_1_of_each_frame_alone() -> None:
    fusion = drawn(AudioFusion(16, options(audio_softmax="pixels", fusion_dim=32)))
    visual = seeded_input(5, "V", (2, 16, 2, 3))
    audio = seeded_input(5, "A", (2, 128))
    fused = fusion(visual, audio)
    for t in range(2):
        pixels = visual[t].flatten(1).T
        logits = fusion.query(pixels) @ fusion.key(audio[t : t + 1]).T / math.sqrt(32)  # (HW,1)
        weights = logits.softmax(dim=0)
        expected = weights @ fusion.value(audio[t : t + 1]) + fusion.content(pixels)
        assert_close(fused[t].flatten(1).T, expected, rtol=1e-4, atol=1e-5)
        assert weights.std() > 0.01


def test_sound_enters_the_coarser_scales_only() -> None:
    """The largest map is not fused (section 3.2); what it gets, it gets by the top-down path."""
    model = build()
    assert [fusion.content.in_features for fusion in model.pixel_decoder.fusions] == list(
        model.backbone.channels[:0:-1][::-1]
    )


# Equations 9 to 12


def plain_abti(module: AudioBridgedInteraction, features: Tensor, audio: Tensor) -> Tensor:
    """Section 3.4 pair by pair, for one clip: F (T,C,h,w), A (T,128)."""
    frames = len(features)
    pixels = [frame.flatten(1).T for frame in features]  # (HW,C)
    weights, objects = {}, []
    for p in range(frames):
        for q in range(frames):
            logits = module.sound(audio[p : p + 1]) @ module.match(pixels[q]).T
            weights[p, q] = logits.softmax(dim=-1)  # equation 9, (1,HW)
            objects.append(weights[p, q] @ module.collect(pixels[q]))  # equation 10
    sequence = torch.cat(objects)
    updated = reference_attention(module.interact, sequence, sequence, sequence)
    enhanced = []
    for q in range(frames):
        total = pixels[q]
        for p in range(frames):
            total = total + weights[p, q].T @ module.spread(updated[p * frames + q][None])  # equation 11
        enhanced.append(total.T.view(features[q].shape))  # equation 12
    return torch.stack(enhanced)


@pytest.mark.parametrize("seed", [1, 2])
def test_abti_gathers_interacts_and_remaps_as_written(seed: int) -> None:
    module = drawn(AudioBridgedInteraction(options(abti_dim=32)), seed)
    maps, audio = seeded_input(seed, "F", (2, 3, 64, 2, 3)), seeded_input(seed, "A", (2, 3, 128))
    enhanced = module(maps, audio, torch.ones(2, 3, dtype=torch.bool))
    for clip in range(2):
        expected = plain_abti(module, maps[clip], audio[clip])
        assert_close(enhanced[clip], expected, rtol=1e-3, atol=1e-4, msg=f"seed {seed}, clip {clip}")
        assert (expected - maps[clip]).abs().max() > 0.1


def test_abti_of_fewer_frames_than_it_is_given() -> None:
    module = drawn(AudioBridgedInteraction(options(abti_dim=32)))
    maps, audio = seeded_input(1, "F", (1, 4, 64, 2, 3)), seeded_input(1, "A", (1, 4, 128))
    valid = torch.tensor([[True, False, True, True]])
    maps[~valid] = 0
    enhanced = module(maps, audio, valid)
    assert not enhanced[~valid].any()
    assert_close(enhanced[valid], plain_abti(module, maps[valid], audio[valid]), rtol=1e-3, atol=1e-4)


def test_abti_brings_other_frames_in_at_the_chosen_scales() -> None:
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


# Equations 3 to 6


def codes(height: int, width: int, dim: int) -> Tensor:
    from avsbench_harness.nn.positions import sine_positions

    return sine_positions(height, width, dim, normalize=True).flatten(0, 1)


@pytest.mark.parametrize("query_frames", ["all", "own"])
def test_a_decoder_layer_is_equations_3_to_5(query_frames: str) -> None:
    layer: DecoderLayer = drawn(DecoderLayer(options(query_frames=query_frames)))
    queries, maps = seeded_input(1, "A", (2, 3, 64)), seeded_input(1, "M", (2, 3, 64, 2, 3))
    result = layer(queries, maps, torch.ones(2, 3, dtype=torch.bool))

    def normed(norm: nn.LayerNorm, values: Tensor) -> Tensor:
        return F.layer_norm(values, (64,), norm.weight, norm.bias)

    for clip in range(2):
        before = queries[clip]
        pixels = [maps[clip, t].flatten(1).T for t in range(3)]
        places = codes(2, 3, 64)
        if query_frames == "all":
            values = torch.cat(pixels)
            read = reference_attention(layer.cross_attn, before, values + places.repeat(3, 1), values)
        else:
            read = torch.cat(
                [
                    reference_attention(layer.cross_attn, before[t : t + 1], pixels[t] + places, pixels[t])
                    for t in range(3)
                ]
            )
        x = normed(layer.cross_norm, read) + before  # equation 3
        x = normed(layer.self_norm, reference_attention(layer.self_attn, x, x, x)) + x  # equation 4
        x = normed(layer.ffn_norm, layer.linear2(layer.linear1(x).relu())) + x  # equation 5
        assert_close(result[clip], x, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("query_frames", "hears"), [("all", True), ("own", False)])
def test_which_frames_a_query_attends_to(query_frames: str, hears: bool) -> None:
    layer = drawn(DecoderLayer(options(query_frames=query_frames)))
    queries, maps = seeded_input(1, "A", (1, 3, 64)), seeded_input(1, "M", (1, 3, 64, 2, 2))
    other = maps.clone()
    other[:, 2] += 1
    everything = torch.ones(1, 3, dtype=torch.bool)
    change = (
        layer.attend_pixels(queries, maps, everything) - layer.attend_pixels(queries, other, everything)
    ).abs()
    assert (change[:, 0].max() > 1e-3) == hears
    assert change[:, 2].max() > 1e-3


def test_layers_read_the_scales_in_turn_from_coarse_to_fine() -> None:
    decoder: AudioQueriedDecoder = drawn(AudioQueriedDecoder(options(stages=2), scales=3, vanilla_queries=5))
    audio, valid = seeded_input(1, "A", (1, 2, 128)), torch.ones(1, 2, dtype=torch.bool)
    maps = [seeded_input(1, f"M{side}", (1, 2, 64, side, side)) for side in (1, 2, 4)]
    before = decoder(audio, maps, valid)
    assert before.shape == (1, 2, 6, 64)
    for first, _ in enumerate(maps):
        changed = [level + (index == first) for index, level in enumerate(maps)]
        moved = (decoder(audio, changed, valid) - before).abs().amax(dim=(0, 1, 3)) > 1e-4
        assert moved.tolist() == [False] * first + [True] * (6 - first)


def test_the_initial_queries_are_the_sounds_of_their_frames() -> None:
    decoder = drawn(AudioQueriedDecoder(options(), scales=3, vanilla_queries=5))
    audio, valid = seeded_input(1, "A", (2, 3, 128)), torch.ones(2, 3, dtype=torch.bool)
    projection = decoder.audio_projection
    for clip in range(2):
        for t in range(3):
            expected = projection.weight @ audio[clip, t] + projection.bias
            assert_close(decoder.initial_queries(audio, valid)[clip, t], expected)


def test_vanilla_queries_are_learned_one_per_frame_and_deaf() -> None:
    decoder = drawn(AudioQueriedDecoder(options(queries="vanilla"), scales=3, vanilla_queries=5))
    valid = torch.tensor([[True, False, True, True], [True, True, False, False]])
    first = decoder.initial_queries(seeded_input(1, "A", (2, 4, 128)), valid)
    assert torch.equal(first, decoder.initial_queries(seeded_input(2, "A", (2, 4, 128)), valid))
    assert torch.equal(first[0, [0, 2, 3]], decoder.queries[:3])
    assert torch.equal(first[1, :2], decoder.queries[:2])


def test_more_frames_than_vanilla_queries_are_refused() -> None:
    with pytest.raises(UsageError, match="5, one per frame, and a clip has 6 frames"):
        build(queries="vanilla").predict(batch(clips=1, frames=6))


def test_masks_are_products_of_a_frames_embedding_with_its_own_pixels() -> None:
    embeddings = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])  # (1,2 frames,1,2)
    features = torch.tensor([[[[[1.0, 0.0]], [[0.0, 1.0]]], [[[2.0, 1.0]], [[1.0, 0.0]]]]])  # (1,2,2,1,2)
    expected = torch.tensor([[[[[1.0, 2.0]]], [[[5.0, 3.0]]]]])
    assert torch.equal(mask_products(embeddings, features), expected)


def test_the_prediction_is_the_last_layers_mask() -> None:
    model, clips = build(), batch()
    with torch.no_grad():
        output, prediction = model(clips), model.predict(clips)
    expected = torch.einsum("btc,btcxy->btxy", output.embeddings[:, :, -1], output.maps[3])
    assert_close(output.mask_logits[:, :, -1], expected, rtol=1e-4, atol=1e-4)
    full = F.interpolate(expected, size=(64, 64), mode="bilinear", align_corners=False).sigmoid()
    assert_close(prediction, full, rtol=1e-4, atol=1e-4)


# Equations 7 and 8


def test_similarity_by_hand() -> None:
    """Two frames and one layer: |0 - 1/sqrt 2| for (1,2) and for (2,1), nothing for a frame with itself."""
    embeddings = torch.tensor([[[[1.0, 0.0]], [[0.0, 5.0]]]])
    pooled = torch.tensor([[[[2.0, 0.0]], [[3.0, 3.0]]]])
    everything = torch.ones(1, 2, dtype=torch.bool)
    assert_close(similarity_loss(embeddings, pooled, everything), torch.tensor(math.sqrt(2.0)))
    assert similarity_loss(embeddings, pooled, torch.tensor([[True, False]])) == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_similarity_sums_over_layers_and_pairs_and_averages_over_clips(seed: int) -> None:
    embeddings, pooled = (seeded_input(seed, name, (3, 4, 2, 8)) for name in "AZ")
    valid = torch.tensor([[True] * 4, [True, True, False, True], [False] * 4])
    expected = torch.zeros(())
    for clip in range(2):
        for layer in range(2):
            for p in range(4):
                for q in range(4):
                    if valid[clip, p] and valid[clip, q]:
                        heard = F.cosine_similarity(embeddings[clip, p, layer], embeddings[clip, q, layer], 0)
                        seen = F.cosine_similarity(pooled[clip, p, layer], pooled[clip, q, layer], 0)
                        expected += (heard - seen).abs() / 2
    assert_close(similarity_loss(embeddings, pooled, valid), expected, msg=f"seed {seed}")


def test_masked_average_by_hand() -> None:
    """Two pixels, the mask at twice the size: 3/4 and 1/2 of their areas are on."""
    maps = torch.tensor([[[4.0, 8.0]], [[1.0, -1.0]]])  # (2 channels,1,2)
    mask = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0]])
    expected = torch.tensor([(4 * 0.75 + 8 * 0.5) / 2, (0.75 - 0.5) / 2])
    assert_close(masked_average(maps[None, None], mask[None, None])[0, 0], expected)


def test_the_masked_average_stops_no_gradient() -> None:
    maps = seeded_input(1, "M", (2, 3, 2, 2)).requires_grad_()
    probability = seeded_input(1, "Y", (2, 4, 4)).sigmoid().requires_grad_()
    for gradient in torch.autograd.grad(masked_average(maps, probability).sum(), [maps, probability]):
        assert gradient.abs().min() > 0


def test_every_layer_is_compared_with_the_scale_it_reads_under_the_final_mask() -> None:
    model = build(stages=2)
    with torch.no_grad():
        output = model(batch())
        pooled = model._pooled(output)
    final = output.mask_logits[:, :, -1].sigmoid()
    for layer in range(6):
        maps = output.maps[layer % 3]
        small = F.interpolate(final, size=maps.shape[-2:], mode="area")
        assert_close(pooled[:, :, layer], (maps * small[:, :, None]).mean(dim=(3, 4)), rtol=1e-4, atol=1e-6)


def test_the_similarity_loss_stops_no_gradient() -> None:
    """Embeddings, features and masks all learn from it: the paper names no stop."""
    model = build()
    output = model(batch())
    tensors = [output.embeddings, output.mask_logits, *output.maps[:3]]
    loss = similarity_loss(output.embeddings, model._pooled(output), torch.ones(2, 3, dtype=torch.bool))
    for gradient in torch.autograd.grad(loss, tensors):
        assert gradient.abs().max() > 0


# Equations 13 and 14


def test_mask_losses_by_hand() -> None:
    """One frame, two layers, two pixels of which one sounds; p = 1/2 in layer 1, 3/4 and 1/4 in layer 2."""
    odds = math.log(3.0)
    logits = torch.tensor([[[[0.0, 0.0]], [[odds, -odds]]]])
    masks = torch.tensor([[[True, False]]])
    bce, dice = mask_losses(logits, masks)
    assert_close(bce, torch.tensor(math.log(2) + math.log(4 / 3)))
    assert_close(dice, torch.tensor((1 - 2 / 3) + (1 - 2.5 / 3)))


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


def test_names_of_the_losses() -> None:
    with torch.no_grad():
        assert list(build().losses(supervised())) == ["mask_bce", "mask_dice", "similarity"]
        assert list(build(similarity_loss=False).losses(supervised())) == ["mask_bce", "mask_dice"]


def test_class_loss_is_over_what_sounds() -> None:
    logits = seeded_input(1, "logits", (2, 70, 4, 4))
    masks = torch.zeros(2, 4, 4, dtype=torch.int64)
    assert sounding_class_loss(logits, masks) == 0
    masks[0, 1, 2], masks[1, 0, 0] = 70, 1
    expected = -(logits[0].log_softmax(0)[69, 1, 2] + logits[1].log_softmax(0)[0, 0, 0]) / 2
    assert_close(sounding_class_loss(logits, masks), expected)


@pytest.mark.parametrize("task", [S4, AVSS])
def test_masks_learn_from_annotated_frames_and_similarity_from_all(task: Task) -> None:
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


# Frames that do not exist


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
def test_five_of_ten_frames_are_a_clip_of_five(task: Task, changes: dict[str, Any]) -> None:
    """Outputs, prediction and losses, in training mode too, with no numbers where no frames are."""
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
def test_frames_missing_in_the_middle_leave_a_shorter_clip(queries: str) -> None:
    model, clips = build(queries=queries), batch(clips=1, frames=4)
    there = [0, 2, 3]
    valid = torch.tensor([[index in there for index in range(4)]])
    with torch.no_grad():
        gaps = model.predict(replace(clips, valid=valid))[:, there]
        whole = model.predict(Batch(clips.images[:, there], clips.audio[:, there]))
    assert_close(gaps, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", [S4, AVSS])
def test_a_batch_without_any_frame_has_zeros_and_a_loss_of_zero(task: Task) -> None:
    model = build(task).train()
    clips = replace(supervised(task), valid=torch.zeros(2, 3, dtype=torch.bool))
    assert not model.predict(clips).any()
    losses = model.losses(clips)
    assert all(term == 0 for term in losses.values())
    torch.stack(list(losses.values())).sum().backward()


# Other inputs


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


def test_silence_and_all_classes_have_losses() -> None:
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
        expected = model.class_head(gated.movedim(2, -1)).movedim(-1, 2)
    assert_close(output.class_logits, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("row", ["2a Vanilla Object Query", "2a Audio Query†", "2b both"])
@pytest.mark.parametrize("task", [MS3, AVSS])
def test_every_parameter_learns(task: Task, row: str) -> None:
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


# Options, recipes, card


def test_every_row_of_table_2_changes_what_it_says() -> None:
    networks = set()
    for name, changes in TABLE_2.items():
        with torch.device("meta"):
            built = build(**{**SMALL, "stages": 3, **changes})
        chosen = built.options
        networks.add(
            (chosen.queries, chosen.query_frames, chosen.abti, chosen.similarity_loss, chosen.stages)
        )
        assert len(built.interactions) == len(changes.get("abti", [1, 2, 3, 4])), name
        assert len(built.decoder.layers) == 3 * changes.get("stages", 3), name
    # basic = Audio Query, + AVSim = "-", and the full method ends each of 2b, 2c and 2d.
    assert len(networks) == len(TABLE_2) - 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"abti": [], "abti_dim": 64}, "abti_dim has no effect without abti"),
        ({"similarity_loss": False, "similarity_weight": 2.0}, "no effect without similarity_loss"),
        ({"fusion_dim": 64}, "no effect without audio_softmax pixels"),
        ({"class_weight": 2.0}, "no effect without classes, which only avss has"),
        ({"heads": 7}, "heads of aqformer is 7, which does not divide dim 256"),
        ({"abti_dim": 100}, "heads of aqformer is 8, which does not divide abti_dim 100"),
        ({"abti": [1, 1]}, "no scale may be named twice"),
        ({"abti": [5]}, "'abti.0' is 5"),
        ({"query": "audio"}, "Unknown key 'query'.*queries"),
        ({"stages": 0}, "'stages' is 0"),
        ({"dim": 100}, "'dim' is 100"),
    ],
)
def test_options_without_sense_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Options.of(values, MS3, "paper")


def test_the_order_of_scales_does_not_matter() -> None:
    assert Options.of({"abti": [4, 1]}, MS3, "paper").abti == (1, 4)


@pytest.mark.parametrize(
    ("task", "backbone", "batch_size", "clips", "iterations", "lr"),
    [
        ("s4", "r50", 8, 3452, 20_000, 1.25e-4),
        ("s4", "pvt", 4, 3452, 40_000, 1.25e-4),
        ("ms3", "r50", 8, 296, 2_000, 5e-4),
        ("ms3", "pvt", 4, 296, 4_000, 5e-4),
    ],
)
def test_the_recipe_is_section_4_2(
    task: str, backbone: str, batch_size: int, clips: int, iterations: int, lr: float
) -> None:
    from avsbench_harness.engine.optim import length

    recipe = resolve(AQFormer(), TASKS[task], backbone)
    assert length(recipe, clips)[0] == iterations
    assert recipe.batch_size == batch_size
    assert recipe.optimizer.lr == lr
    assert recipe.optimizer.name == "adamw"
    assert recipe.optimizer.weight_decay == 0.05
    assert recipe.schedule.name == "poly"


def test_the_card_lists_every_option_and_every_row_of_table_2() -> None:
    card = CARD.read_text(encoding="utf-8")
    assert [name for name in Options.model_fields if f"`{name}`" not in card] == []
    for row in TABLE_2:
        table, _, label = row.partition(" ")
        assert f"| {table} | {label} |" in card, row


def millions(task: Task, backbone: str) -> float:
    with torch.device("meta"):
        model = AQFormer().build(task, backbone, variant="paper")
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


@pytest.mark.slow
def test_the_card_states_the_numbers_of_parameters() -> None:
    card = CARD.read_text(encoding="utf-8")
    for backbone in ("r50", "pvt", "swin_t"):
        assert f"{backbone} {millions(S4, backbone):.1f} M" in card
    assert round((millions(AVSS, "r50") - millions(S4, "r50")) * 1e6) == 17_990
    assert "17,990" in card
