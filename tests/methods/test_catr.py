"""CATR: behaviour of a small network, the oddities one by one, options, and loading of checkpoints."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from avsbench_methods.catr import CATR
from avsbench_methods.catr.encoder import Fusion
from avsbench_methods.catr.frames import Frames
from avsbench_methods.catr.gate import FrameGate
from avsbench_methods.catr.layers import ReLUFeedForward
from avsbench_methods.catr.loss import Targets, clip_losses, reference_loss
from avsbench_methods.catr.model import CATRModel
from avsbench_methods.catr.options import Options
from avsbench_methods.catr.upstream import rename

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.files import read_json
from avsbench_harness.recipe.resolve import presets, resolve
from avsbench_harness.tasks import AVSS, MS3, S4, Task
from avsbench_harness.testing.seeded import seeded_input

SMALL: dict[str, Any] = {"queries": 6, "dim": 64, "kernel_channels": 16, "decoder_layers": 2, "ffn_dim": 64}
KEYS = Path(__file__).parents[1] / "fixtures" / "catr" / "pvt.keys.json"
TOKENS = pytest.mark.parametrize("tokens", ["clip", "frame"])


def build(task: Task = S4, backbone: str = "resnet10t", **options: Any) -> CATRModel:
    torch.manual_seed(0)
    model = CATR().build(task, backbone, variant="released", **{**SMALL, **options})
    assert isinstance(model, CATRModel)
    return model.eval()


def batch(clips: int = 2, frames: int = 3, size: tuple[int, int] = (64, 64), **fields: Any) -> Batch:
    images = seeded_input(1, "images", (clips, frames, 3, *size))
    return Batch(images, seeded_input(1, "audio", (clips, frames, 128)), **fields)


def masks(like: Batch) -> torch.Tensor:
    clips, frames, height, width = like.shape
    return torch.randint(2, (clips, frames, height, width), generator=torch.Generator().manual_seed(3))


def truthful(**fields: Any) -> Batch:
    plain = batch()
    return Batch(plain.images, plain.audio, masks=masks(plain), **fields)


def same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


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
def test_the_prediction_is_the_mask_of_the_query_that_most_probably_sounds() -> None:
    model, clips = build(), batch()
    output, prediction = model(clips), model.predict(clips)
    for clip in range(2):
        for frame in range(3):
            reference = output.reference_logits[clip, frame]
            query = int((reference[:, 0] - reference[:, 1]).argmax())
            mask = output.mask_logits[clip, frame, query][None, None]
            mask = F.interpolate(mask, size=(64, 64), mode="bilinear", align_corners=False)[0, 0]
            same(prediction[clip, frame], mask.sigmoid())


def test_sides_that_are_no_multiples_of_32_are_refused() -> None:
    with pytest.raises(UsageError, match=r"multiples of 32, got 50x64 pixels.*image_size"):
        build()(batch(size=(64, 50)))


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
def test_another_frame_reaches_the_map_but_not_the_queries() -> None:
    model, clips = build(), batch()
    images = clips.images.clone()
    images[:, 2] *= -1
    before, after = model(clips), model(Batch(images, clips.audio))
    same(after.reference_logits[:, :2], before.reference_logits[:, :2])
    assert (after.mask_logits - before.mask_logits)[:, :2].abs().max() > 1e-4
    assert (after.reference_logits - before.reference_logits)[:, 2].abs().max() > 1e-4


@torch.no_grad()
def test_the_order_of_the_sound_counts_only_if_every_frame_has_its_own() -> None:
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
def test_a_padded_clip_gives_what_the_shorter_clip_gives(tokens: str, training: bool) -> None:
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
def test_a_batch_without_any_frame_is_all_zeros() -> None:
    clips = batch(valid=torch.zeros(2, 3, dtype=torch.bool))
    model = build()
    assert model(clips).mask_logits.shape == (2, 3, 6, 4, 4)
    prediction = model.predict(clips)
    assert prediction.shape == (2, 3, 64, 64)
    assert not prediction.any()


@TOKENS
def test_every_parameter_learns(tokens: str) -> None:
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


def test_mixed_precision_trains_and_stays_near() -> None:
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
def test_losses_see_annotated_frames_only() -> None:
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
def test_losses_are_means_over_clips_that_carry_ground_truth() -> None:
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


def predictions(frames: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Reference (t,6,2) and mask logits (t,6,4,4), and truth (t,8,8) that is empty in the first frame."""
    truth = (seeded_input(1, "truth", (frames, 8, 8)) > 0).float()
    truth[0] = 0
    reference = seeded_input(1, "reference", (frames, 6, 2))
    return reference, seeded_input(1, "masks", (frames, 6, 4, 4)), truth


def losses_of(
    reference: torch.Tensor, masks: torch.Tensor, truth: torch.Tensor, **options: Any
) -> dict[str, torch.Tensor]:
    chosen = Options(**options)
    return clip_losses(reference, masks, Targets.of(truth, 2, chosen), chosen)


def test_cross_entropy_of_probabilities_or_of_logits() -> None:
    released = losses_of(*predictions())["bce"]
    assert 0.31 < released < 1.32
    reference, logits, truth = predictions()
    sure = 100 * (2 * F.interpolate(truth[:, None], (4, 4)).expand(-1, 6, -1, -1) - 1)
    truth = F.interpolate(sure[:, :1], (8, 8), mode="bilinear", align_corners=False)[:, 0].gt(0).float()
    assert losses_of(reference, sure, truth)["bce"] > 0.31
    assert losses_of(reference, sure, truth, bce_input="logit")["bce"] < 1e-4
    assert losses_of(reference, logits, truth, bce_input="logit")["bce"] > 0.5


def test_what_the_matched_query_should_say_where_nothing_sounds() -> None:
    reference, _, truth = predictions()
    matched = torch.tensor([4])
    entropy = -reference.log_softmax(dim=-1)
    others = 0.1 * (entropy[..., 1].sum(dim=1) - entropy[:, 4, 1])
    for choice, first in {"sounding": entropy[0, 4, 0], "silent": 0.1 * entropy[0, 4, 1]}.items():
        options = Options(silent_target=choice)
        wanted = Targets.of(truth, 2, options).references
        found = reference_loss(reference, matched, wanted, options)
        same(found, (others + torch.stack((first, entropy[1, 4, 0]))).mean())


@pytest.mark.parametrize("power", [1, 2])
def test_fusion_multiplies_what_asked_by_what_it_reads(power: int) -> None:
    fusion = Fusion(Options(**SMALL, fusion_power=power))
    torch.nn.init.normal_(fusion.attention.out_proj.bias)
    tokens, context = seeded_input(1, "tokens", (2, 5, 64)), seeded_input(1, "context", (2, 3, 64))
    read = fusion.attention(tokens, context, context)
    same(fusion(tokens, context, context, None), tokens * read**power)


@pytest.mark.parametrize("pairs", ["first_pair", "own_pair"])
def test_gates_by_hand(pairs: str) -> None:
    torch.manual_seed(1)
    gate = FrameGate(Options(**SMALL, encoder_layers=4, later_gates=pairs)).eval()
    maps = list(seeded_input(1, "maps", (4, 2, 64, 4, 4)))
    looks = [
        gate.conv(torch.cat((maps[index], maps[index + 1]), dim=1)).sigmoid().mean(dim=(2, 3))
        for index in range(3)
    ]
    if pairs == "first_pair":
        weights = [looks[0][:, 0], looks[0].sigmoid().mean(dim=1), looks[0].sigmoid().mean(dim=1)]
    else:
        weights = [looks[index][:, index] for index in range(3)]
    same(gate.gates(maps)[..., 0], torch.stack(weights, dim=1))
    weighted = [weight[:, None, None, None] * each for weight, each in zip(weights, maps[1:], strict=True)]
    total = gate.merge[0](weighted[0])
    total = gate.merge[1](total + weighted[1])
    same(gate(maps), gate.merge[2](total + weighted[2]))


def test_feed_forward_is_linear_relu_linear() -> None:
    block = ReLUFeedForward(4, 8, dropout=0.9).eval()
    tokens = seeded_input(1, "tokens", (3, 4))
    hidden = (tokens @ block.linear1.weight.T + block.linear1.bias).clamp(min=0)
    same(block(tokens), hidden @ block.linear2.weight.T + block.linear2.bias)


@pytest.mark.parametrize("valid", [[[1, 1], [1, 1]], [[0, 1], [1, 0]], [[1, 1], [1, 0]]])
def test_frames_go_into_a_row_and_back(valid: list[list[int]]) -> None:
    exists = torch.tensor(valid, dtype=torch.bool)
    frames = Frames(exists)
    values = torch.arange(4).view(2, 2, 1)
    row = frames.pack(values)
    assert row[:, 0].tolist() == [int(value) for value in values[..., 0][exists]]
    assert torch.equal(frames.unpack(row), values * exists[..., None])
    assert [frames.clip[first].item() for first in frames.first] == [0, 1]


def test_weights_start_as_in_detr() -> None:
    model = build(dim=128)
    for weight in (
        model.spatial_encoder.layers[0].ffn.linear1.weight,
        model.temporal_encoder.layers[0].to_audio.attention.in_proj.weight,
        model.decoder.layers[1].cross_attn.in_proj.weight,
    ):
        bound = (6 / sum(weight.shape)) ** 0.5
        assert 0.9 * bound < float(weight.detach().abs().max()) <= bound
    assert float(model.decoder.queries.detach().std()) == pytest.approx(1, abs=0.1)
    assert float(model.levels[0].convs[0].weight.detach().std()) == pytest.approx(0.01, rel=0.1)


@functools.cache
def without_memory(backbone: str) -> CATRModel:
    """The released network as names and shapes only."""
    with torch.device("meta"):
        return CATR().build(S4, backbone, variant="released")  # type: ignore[return-value]


def test_published_names_and_sizes() -> None:
    model = without_memory("pvt")
    published = read_json(KEYS)
    renamed = [name for name in map(rename, published) if name is not None]
    assert sorted(renamed) == sorted(model.state_dict())
    # The published count without VGGish, less what gets no gradient there.
    assert sum(parameter.numel() for parameter in model.parameters()) == 118_599_462 - 11_931_520


def test_r50_can_be_built() -> None:
    assert without_memory("r50").backbone.channels == (256, 512, 1024, 2048)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"querys": 10}, "Unknown key 'querys' in the options of catr. Did you mean 'queries'?"),
        ({"dim": 96}, "'dim' is 96"),
        ({"encoder_layers": 1}, "'encoder_layers' is 1"),
        ({"audio_tokens": "all"}, "'audio_tokens' is 'all'"),
        ({"fusion_power": 3}, "'fusion_power' is 3"),
        ({"later_gates": "none"}, "'later_gates' is 'none'"),
        ({"silent_target": "loud"}, "'silent_target' is 'loud'"),
        ({"bce_input": "mask"}, "'bce_input' is 'mask'"),
        ({"dice_weight": float("nan")}, "'dice_weight' is nan"),
        ({"match_dice": -1}, "'match_dice' is -1"),
        ({"dropout": 1.0}, "'dropout' is 1.0"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(**options)
    assert message in str(caught.value)


def test_what_was_not_released_is_refused() -> None:
    with pytest.raises(UsageError, match="no class head, so it cannot do avss; the variant paper can"):
        build(AVSS)
    with pytest.raises(UsageError, match="variant of catr 'later'"):
        CATR().build(S4, "pvt", variant="later")


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """A state dict of the published names and shapes; every entry holds a number of its own."""
    shapes = read_json(KEYS)
    return {
        name: torch.tensor(float(i)).expand(tuple(shape)) for i, (name, shape) in enumerate(shapes.items())
    }


@pytest.fixture(scope="module")
def released() -> CATRModel:
    return copy.deepcopy(without_memory("pvt")).to_empty(device="cpu")


def test_checkpoints_with_audio_encoder_and_data_parallel_prefix_load(
    released: CATRModel, published: dict[str, torch.Tensor]
) -> None:
    state = {"module." + name: value for name, value in published.items() if not name.startswith("path1")}
    released.load_upstream({**state, "module.audio_backbone.features.0.weight": torch.zeros(1)})
    assert torch.equal(released.decoder.queries, published["obj_queries.weight"])
    assert torch.equal(
        released.temporal_encoder.layers[1].to_video.attention.in_proj.weight,
        published["transformer.temporal_encoder.layers.1.av_atten.multihead_attn.in_proj_weight"],
    )
    assert torch.equal(released.mask_feature.laterals[1].bias, published["spatial_decoder.adapter2.bias"])
    assert torch.equal(released.levels[0].convs[2].weight, published["conv2.conv2d_list.2.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"obj_queries.weight": None}, r"1 missing \(decoder\.queries\)"),
        ({"spatial_decoder.new.weight": torch.zeros(1)}, r"1 unknown \(spatial_decoder\.new\.weight\)"),
        (
            {"is_referred_head.weight": torch.zeros(72, 256)},
            r"catr for s4 with pvt: 1 of the wrong shape \(is_referred_head\.weight",
        ),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(
    released: CATRModel, published: dict[str, torch.Tensor], change: dict[str, Any], message: str
) -> None:
    state = {name: value for name, value in {**published, **change}.items() if value is not None}
    with pytest.raises(UsageError, match=message):
        released.load_upstream(state)


def test_backbones_without_checkpoints_say_so() -> None:
    with pytest.raises(UsageError, match="no published weights with the backbone resnet10t"):
        build().load_upstream({})


def test_recipes_are_valid_and_follow_the_release() -> None:
    method = CATR()
    assert set(presets(method)) == {"full", "smoke"}
    for preset in presets(method):
        recipe = resolve(method, S4, "pvt", preset=preset)
        assert recipe.image_size % 32 == 0
        Options.of(recipe.options, S4, "released")
    full = resolve(method, S4, "pvt")
    assert (full.image_size, full.epochs, full.batch_size, full.clip_norm) == (448, 100, 2, 5.0)
    assert (full.optimizer.name, full.optimizer.lr, full.optimizer.weight_decay) == ("adam", 1e-5, 0)
    assert full.backbone.drop_path_rate == 0.1


def test_the_model_card_names_every_option() -> None:
    card = CATR().card()
    assert [name for name in Options.model_fields if f"`{name}`" not in card] == []
    recipes = yaml.safe_load((CATR().folder / "recipes.yaml").read_text())
    assert [name for name in recipes if f"`{name}`" not in card] == []
