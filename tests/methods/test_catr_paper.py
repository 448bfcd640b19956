"""CATR as in its paper: equations by hand, the rows of its tables, classes, and bad input."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from avsbench_methods.catr import CATR
from avsbench_methods.catr.decoder import MaskFeature, QueryDecoder
from avsbench_methods.catr.encoder import AudioTokens, FusionBlock
from avsbench_methods.catr.frames import Frames
from avsbench_methods.catr.gate import ChannelGate
from avsbench_methods.catr.loss import Targets, clip_losses, matching_cost
from avsbench_methods.catr.model import CATRModel, CATROutput
from avsbench_methods.catr.options import PAPER, Options
from torch import Tensor, nn

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.resolve import presets, resolve
from avsbench_harness.tasks import AVSS, MS3, S4, TASKS, Task
from avsbench_harness.testing.seeded import seeded_input

SMALL: dict[str, Any] = {"queries": 6, "dim": 64, "ffn_dim": 64}
#: The rows of the paper's Tables 3 to 6 that change the network.
ROWS: dict[str, dict[str, Any]] = {
    "table 3, baseline": {"encoder": "none", "decoding": "direct"},
    "table 3, decoupled A-V transformer": {"gate": "none", "decoding": "direct"},
    "table 3, blockwise-encoded gate": {"decoding": "direct"},
    "table 3, audio-queried decoding": {},
    "table 4, without audio": {"audio": False},
    "table 5, without spatial fusion": {"spatial_fusion": False},
    "table 5, without temporal A-V fusion": {"temporal_av_fusion": False},
    "table 5, without temporal V-A fusion": {"temporal_va_fusion": False},
    "table 6, 2 channels": {"gate_channels": 2},
    "table 6, 32 of 64 channels": {"gate_channels": 32},
}


def options(**changes: Any) -> Options:
    return Options(**{**PAPER, **SMALL, **changes})


def build(task: Task = MS3, **changes: Any) -> CATRModel:
    torch.manual_seed(0)
    small = {
        name: value for name, value in SMALL.items() if changes.get("decoding") != "direct" or name == "dim"
    }
    model = CATR().build(task, "resnet10t", variant="paper", **{**small, **changes})
    assert isinstance(model, CATRModel)
    return model.eval()


@functools.cache
def paper(task: str = "ms3") -> CATRModel:
    """The network without changes, for tests that only look at it."""
    return build(TASKS[task])


def batch(clips: int = 2, frames: int = 3, size: int = 64, classes: int = 2, **fields: Any) -> Batch:
    draw = torch.Generator().manual_seed(3)
    fields.setdefault("masks", torch.randint(classes, (clips, frames, size, size), generator=draw))
    images = seeded_input(1, "images", (clips, frames, 3, size, size))
    return Batch(images, seeded_input(1, "audio", (clips, frames, 128)), **fields)


def same(found: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def reference_attention(module: nn.Module, *tokens: Tensor) -> Tensor:
    """PyTorch's own multi-head attention with the same weights."""
    dim = tokens[0].shape[-1]
    other = nn.MultiheadAttention(dim, 8, batch_first=True)
    state = {name.replace("in_proj.", "in_proj_"): value for name, value in module.state_dict().items()}
    other.load_state_dict(state)
    found: Tensor = other(*tokens, need_weights=False)[0]
    return found


@pytest.mark.parametrize("va_keys", ["spatial", "fused"])
@torch.no_grad()
def test_a_block_by_equations_3_to_5(va_keys: str) -> None:
    torch.manual_seed(2)
    block = FusionBlock(options(va_keys=va_keys), last=False).eval()
    assert block.spatial is not None
    assert block.to_video is not None
    assert block.to_audio is not None
    frames = Frames(torch.ones(2, 3, dtype=torch.bool))
    video, audio = seeded_input(1, "video", (6, 4, 64)), seeded_input(1, "audio", (2, 3, 64))
    positions = seeded_input(1, "positions", (4, 64))
    found_video, found_audio = block(video, audio, positions, AudioTokens(frames, whole=False))
    for clip in range(2):
        pixels, sounds = [], []
        for frame in range(3):  # equation 3: the frame's pixels and its own second
            mixed = torch.cat((video[3 * clip + frame], audio[clip, frame : frame + 1]))[None]
            codes = torch.cat((positions, torch.zeros(1, 64)))
            fused = block.spatial(mixed, codes, None)[0]
            pixels.append(fused[:4])
            sounds.append(fused[4:])
        seen, heard = torch.cat(pixels)[None], torch.cat(sounds)[None]
        # Equation 4: every pixel of the clip and all seconds.
        hearing = seen + reference_attention(block.to_video.attention, seen, heard, heard)
        same(found_video[3 * clip : 3 * clip + 3].flatten(0, 1), hearing[0])
        # Equation 5: the other way round.
        source = seen if va_keys == "spatial" else hearing
        keys = source + positions.repeat(3, 1)
        seeing = heard + reference_attention(block.to_audio.attention, heard, keys, source)
        same(found_audio[clip], seeing[0])


@pytest.mark.parametrize("channels", [None, 2, 16])
@torch.no_grad()
def test_gate_by_equation_6(channels: int | None) -> None:
    torch.manual_seed(2)
    gate = ChannelGate(options(gate_channels=channels)).eval()
    maps = list(seeded_input(1, "maps", (3, 2, 64, 5, 4)))
    total = maps[0]
    for pair in range(2):
        conv = gate.convs[pair]
        assert isinstance(conv, nn.Conv2d)
        assert conv.out_channels == (channels or 64)
        opened = conv(torch.cat((maps[pair], maps[pair + 1]), dim=1)).sigmoid()
        weighted = maps[pair + 1].clone()
        for channel in range(64):
            weight = opened[:, channel * conv.out_channels // 64].flatten(1).mean(dim=1)
            weighted[:, channel] *= weight[:, None, None]
        total = gate.merge[pair](total + weighted)
    same(gate(maps), total)


@torch.no_grad()
def test_queries_start_from_the_sound_of_their_frame() -> None:
    torch.manual_seed(2)
    decoder = QueryDecoder(options(decoder_layers=1)).eval()
    nn.init.normal_(decoder.queries)
    tokens, codes = seeded_input(1, "tokens", (2, 5, 64)), seeded_input(1, "codes", (5, 64))
    sound = seeded_input(1, "sound", (2, 64))
    layer = decoder.layers[0]
    for frame in range(2):
        found = sound[frame].repeat(6, 1)[None]
        asking = found + decoder.queries
        found = layer.norm1(found + reference_attention(layer.self_attn, asking, asking, found))
        memory = tokens[frame : frame + 1]
        read = reference_attention(layer.cross_attn, found + decoder.queries, memory + codes, memory)
        found = layer.norm2(found + read)
        expected = decoder.norm(layer.norm3(found + layer.ffn(found)))
        same(decoder(tokens, codes, None, sound)[0, frame], expected[0])


@torch.no_grad()
def test_only_the_sound_of_its_second_reaches_a_frame_without_blocks() -> None:
    model, clips = build(encoder="none"), batch()
    audio = clips.audio.clone()
    audio[:, 1] *= -1
    before, after = model(clips), model(clips.with_audio(audio))
    change = (after.mask_logits - before.mask_logits).abs().amax(dim=(2, 3, 4))
    assert (change[:, 1] > 1e-4).all()
    assert (change[:, [0, 2]] < 1e-5).all()


@torch.no_grad()
def test_frames_and_seconds_meet_in_the_blocks() -> None:
    model, clips = paper(), batch()
    for part in ("images", "audio"):
        changed = getattr(clips, part).clone()
        changed[:, 2] *= -1
        after = model(Batch(**{"images": clips.images, "audio": clips.audio, part: changed}))
        assert (after.mask_logits - model(clips).mask_logits)[:, :2].abs().max() > 1e-4


@torch.no_grad()
def test_the_pyramid_ends_at_the_encoders_map() -> None:
    torch.manual_seed(0)
    feature = MaskFeature(options())
    encoded, half, quarter = (seeded_input(1, "map", (1, 64, size, size)) for size in (8, 4, 2))
    up = functools.partial(torch.repeat_interleave, repeats=2)
    maps = feature.steps[1](feature.steps[0](quarter))
    maps = feature.laterals[0](half) + up(up(maps, dim=2), dim=3)
    maps = feature.laterals[1](encoded) + up(up(feature.steps[2](maps), dim=2), dim=3)
    same(feature(encoded, half, quarter), feature.output(feature.steps[3](maps)))


def test_one_query_is_selected_for_the_clip() -> None:
    probability = torch.tensor([[[0.9, 0.8], [0.2, 0.7], [0.99, 0.1]]])  # (B,T,Q); the last is padding
    reference = torch.stack((probability.log(), (1 - probability).log()), dim=-1)
    masks = torch.arange(6.0).view(1, 3, 2, 1, 1)
    output = CATROutput(reference, masks)
    valid = torch.tensor([[True, True, False]])
    query, chosen, mask = output.best("clip", valid)
    assert query[0, :2, 0].tolist() == [1, 1]
    same(chosen[0, :2, 0], torch.tensor([0.8, 0.7]))
    assert mask[0, :2].flatten().tolist() == [1.0, 3.0]
    assert output.best("clip")[0][0, :, 0].tolist() == [0, 0, 0]
    assert output.best("frame")[0][0, :, 0].tolist() == [0, 1, 0]


def dice_by_hand(logits: Tensor, truth: Tensor, squares: bool) -> float:
    overlap = extent = 0.0
    for logit, true in zip(logits.flatten().tolist(), truth.flatten().tolist(), strict=True):
        probability = 1 / (1 + math.exp(-logit))
        overlap += probability * true
        extent += probability**2 + true**2 if squares else probability + true
    return 2 * overlap / (extent + 2e-3) if squares else (2 * overlap + 1) / (extent + 1)


@pytest.mark.parametrize("dice", ["squares", "sums"])
@pytest.mark.parametrize("by", ["cross_entropy", "probability"])
def test_matching_by_equation_8(by: str, dice: str) -> None:
    chosen = options(match_reference=2.0, match_dice=3.0, match_reference_by=by, dice=dice)
    truth = torch.zeros(2, 4, 4, dtype=torch.int64)
    truth[0, :2], truth[1, 1:, 3] = 5, 2  # class 5 in the first frame, class 2 in the second
    targets = Targets.of(truth, 71, chosen)
    assert targets.references.tolist() == [[70, 1], [4, 70]]
    reference, masks = seeded_input(1, "reference", (2, 3, 71)), seeded_input(1, "masks", (2, 3, 4, 4))
    found = matching_cost(reference, masks, targets, chosen)
    assert found.shape == (3, 2)
    for query in range(3):
        for target, label in enumerate((2, 5)):
            costs = []
            for frame in range(2):
                seen = (truth[frame] == label).float()
                output = label - 1 if seen.any() else 70
                probability = reference[frame, query].softmax(dim=0)[output].item()
                entropy = -math.log(probability) if by == "cross_entropy" else -probability
                coefficient = dice_by_hand(masks[frame, query], seen, dice == "squares")
                costs.append(2 * entropy - 3 * coefficient)
            assert found[query, target].item() == pytest.approx(sum(costs) / 2, abs=1e-5)


def test_loss_by_equation_9() -> None:
    chosen = options()
    truth = torch.zeros(2, 4, 4, dtype=torch.int64)
    truth[0, :2], truth[:, 3, 3] = 5, 2
    reference, masks = seeded_input(1, "reference", (2, 4, 71)), seeded_input(1, "masks", (2, 4, 4, 4))
    masks[:, 3] = 20 * ((truth == 5).float() - 0.5)  # query 3 is class 5, query 1 is class 2
    masks[:, 1] = 20 * ((truth == 2).float() - 0.5)
    terms = clip_losses(reference, masks, Targets.of(truth, 71, chosen), chosen)
    assert set(terms) == {"reference", "dice", "focal"}
    entropy = -reference.log_softmax(dim=-1)
    says = {(0, 3): 4, (0, 1): 1, (1, 1): 1}  # (frame, query) that show their object, and its output
    total = sum(
        float(entropy[frame, query, says.get((frame, query), 70)]) * (1.0 if (frame, query) in says else 0.1)
        for frame in range(2)
        for query in range(4)
    )
    assert terms["reference"].item() == pytest.approx(total / 2, rel=1e-5)
    # Three masks are right; of the fourth, empty one, the coefficient is 0.
    assert terms["dice"].item() == pytest.approx(0.25, abs=1e-3)
    assert terms["focal"] < 1e-6


@torch.no_grad()
def test_frames_without_ground_truth_are_not_decoded() -> None:
    for variant in ("paper", "released"):
        torch.manual_seed(0)
        model = CATR().build(S4, "resnet10t", variant=variant, **SMALL)
        annotated = torch.tensor([[True, False, False], [False, False, True]])
        seen: list[int] = []
        model.decoder.register_forward_hook(lambda _, inputs, __, seen=seen: seen.append(len(inputs[0])))
        model.eval()
        clips = batch(annotated=annotated)
        found, everything = model.losses(clips), model(clips)
        assert seen == [2, 6]
        layers = (*everything.earlier, everything)
        for name, value in found.items():
            total = sum(
                getattr(model.options, f"{name}_weight") * terms[name]
                for layer in layers
                for clip, frame in ((0, 0), (1, 2))
                for terms in [
                    clip_losses(
                        layer.reference_logits[clip, [frame]],
                        layer.mask_logits[clip, [frame]],
                        Targets.of(clips.ground_truth()[clip, [frame]], 2, model.options),
                        model.options,
                    )
                ]
                if name in terms
            )
            assert float(value) == pytest.approx(float(total) / 2, abs=1e-4), (variant, name)


@pytest.mark.parametrize("row", ROWS)
def test_rows_of_the_tables_train(row: str) -> None:
    model = build(**ROWS[row]).train()
    losses = model.losses(batch(clips=1, frames=2, size=32))
    torch.stack(list(losses.values())).sum().backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert idle == []
    assert all(term.isfinite() for term in losses.values())
    if row != "table 3, audio-queried decoding":
        assert sorted(model.state_dict()) != sorted(paper().state_dict()) or "table 6" in row


def parts(model: CATRModel) -> set[str]:
    found = {".".join(name.split(".")[:2]) for name in model.state_dict()}
    return found | {name.split(".")[3] for name in model.state_dict() if "encoder.layers" in name}


@torch.no_grad()
def test_what_the_rows_leave_out() -> None:
    everything = parts(paper())
    assert {"spatial", "to_video", "to_audio", "temporal_encoder.gate"} <= everything
    assert everything - parts(build(spatial_fusion=False)) == {"spatial"}
    assert everything - parts(build(temporal_av_fusion=False)) == {"to_video"}
    assert everything - parts(build(temporal_va_fusion=False)) == {"to_audio"}
    assert everything - parts(build(gate="none")) == {"temporal_encoder.gate"}
    deaf = build(audio=False)
    gone = {"to_video", "to_audio", "audio_projection.linear", "audio_projection.norm"}
    assert everything - parts(deaf) == gone
    clips = batch()
    same(deaf.predict(clips), deaf.predict(clips.with_audio(-clips.audio)))
    released = CATR().build(S4, "resnet10t", variant="released", audio=False, **SMALL).eval()
    same(released.predict(clips), released.predict(clips.with_audio(-clips.audio)))


@torch.no_grad()
def test_class_scores_are_masks_of_the_best_queries_times_their_probability() -> None:
    model, clips = paper("avss"), batch(clips=1, frames=2, size=32)
    output, scores = model(clips), model.predict(clips)
    assert output.reference_logits.shape == (1, 2, 6, 71)
    assert output.mask_logits.shape == (1, 2, 6, 4, 4)
    assert scores.shape == (1, 2, 71, 32, 32)
    probability = output.reference_logits[0].softmax(dim=-1)
    resized = nn.functional.interpolate(output.mask_logits[0], size=(32, 32), mode="bilinear").sigmoid()
    for label in (1, 33, 70):
        query = int(probability[..., label - 1].mean(dim=0).argmax())
        for frame in range(2):
            expected = probability[frame, query, label - 1] * resized[frame, query]
            same(scores[0, frame, label], expected)
    same(scores[:, :, 0], 1 - scores[:, :, 1:].amax(dim=2))


@pytest.mark.parametrize("task", TASKS)
@torch.no_grad()
def test_five_of_ten_frames_are_a_clip_of_five(task: str) -> None:
    model, clips = paper(task), batch(clips=1, frames=10, size=32)
    valid = torch.arange(10)[None] < 5
    images, audio = clips.images.clone(), clips.audio.clone()
    images[~valid], audio[~valid] = torch.nan, torch.nan
    found = model.predict(Batch(images, audio, valid))
    same(found[:, :5], model.predict(Batch(images[:, :5], audio[:, :5])))
    assert not found[:, 5:].any()


@pytest.mark.parametrize("variant", ["released", "paper"])
@pytest.mark.parametrize(
    ("frames", "size"), [(1, 64), (10, 32), pytest.param(1, 448, marks=pytest.mark.slow)]
)
def test_any_number_of_frames_and_pixels(variant: str, frames: int, size: int) -> None:
    torch.manual_seed(0)
    model = CATR().build(MS3, "resnet10t", variant=variant, **SMALL).train()
    clips = batch(clips=1, frames=frames, size=size)
    torch.stack(list(model.losses(clips).values())).sum().backward()
    with torch.no_grad():
        assert model.eval().predict(clips).shape == (1, frames, size, size)


@pytest.mark.parametrize("variant", ["released", "paper"])
def test_sides_of_112_pixels_are_refused(variant: str) -> None:
    model = CATR().build(MS3, "resnet10t", variant=variant, **SMALL)
    with pytest.raises(UsageError, match=r"multiples of 32, got 112x112 pixels"):
        model(batch(clips=1, frames=1, size=112))


@pytest.mark.parametrize("variant", ["released", "paper"])
@pytest.mark.parametrize("lack", ["frames", "sound"])
def test_batches_of_nothing_have_a_loss(variant: str, lack: str) -> None:
    torch.manual_seed(0)
    task = MS3 if variant == "released" else AVSS
    model = CATR().build(task, "resnet10t", variant=variant, **SMALL).train()
    if lack == "frames":
        clips = batch(size=32, valid=torch.zeros(2, 3, dtype=torch.bool))
    else:
        clips = batch(size=32, masks=torch.zeros(2, 3, 32, 32, dtype=torch.int64))
    losses = model.losses(clips)
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert torch.isfinite(total)
    assert (total == 0) == (lack == "frames")
    assert all(
        parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None
    )


def test_all_classes_at_once_and_fewer_queries_than_classes() -> None:
    model = build(AVSS).train()
    clips = batch(clips=1, frames=2, size=32, classes=71)
    assert len(clips.ground_truth().unique()) == 71
    losses = model.losses(clips)
    torch.stack(list(losses.values())).sum().backward()
    assert all(term.isfinite() for term in losses.values())
    assert model.reference_head.weight.grad.abs().sum() > 0


def test_training_lowers_the_loss_of_classes() -> None:
    model = build(AVSS, dropout=0.0).train()
    truth = torch.zeros(1, 2, 32, 32, dtype=torch.int64)
    truth[..., :16, :16], truth[:, 1, 20:, 20:] = 7, 70
    clips = batch(clips=1, frames=2, size=32, masks=truth)
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fusion_power": 1}, "fusion_power has no effect because fusion is sum"),
        ({"later_gates": "own_pair"}, "later_gates has no effect"),
        ({"gate": "none", "gate_channels": 2}, "gate_channels has no effect because gate is none"),
        ({"gate": "none", "gate_first_block": True}, "gate_first_block has no effect"),
        ({"gate_channels": 3}, "gate_channels: 3 does not divide the 64 channels"),
        ({"encoder": "none", "encoder_layers": 2}, "encoder_layers has no effect because encoder: none"),
        ({"audio": False, "audio_constrained_queries": True}, "because audio: false removes the audio"),
        ({"audio": False, "temporal_va_fusion": True}, "because audio: false removes the audio"),
        ({"spatial_fusion": False, "audio_tokens": "frame"}, "audio_tokens has no effect"),
        ({"spatial_fusion": False, "temporal_av_fusion": False}, "use encoder: none"),
        ({"temporal_av_fusion": False, "va_keys": "fused"}, "va_keys has no effect"),
        (
            {"temporal_av_fusion": False, "temporal_va_fusion": False, "fusion": "sum"},
            "fusion has no effect because there is no temporal fusion",
        ),
        ({"decoding": "direct", "selection": "clip"}, "because decoding: direct has no queries"),
        ({"bce_input": "logit"}, "bce_input has no effect because bce_weight is 0"),
        ({"match_reference": 0, "match_reference_by": "probability"}, "match_reference_by has no effect"),
        ({"match_dice": 0, "dice_weight": 0, "dice": "sums"}, "dice has no effect"),
    ],
)
def test_options_that_contradict_or_have_no_effect_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Options.of({"dim": 64, **changes}, MS3, "paper")
    assert message in str(caught.value)


def test_one_mask_has_no_class() -> None:
    with pytest.raises(UsageError, match="one mask without a class, so it cannot do avss"):
        build(AVSS, decoding="direct")


def test_published_checkpoints_do_not_fit_the_paper() -> None:
    with torch.device("meta"):
        model = CATR().build(S4, "pvt", variant="paper")
    with pytest.raises(UsageError, match="Check that task, backbone and variant"):
        model.load_upstream({"obj_queries.weight": torch.zeros(50, 256)})


def test_recipes_follow_the_paper() -> None:
    method = CATR()
    for preset in presets(method):
        for task in TASKS.values():
            recipe = resolve(method, task, "r50", variant="paper", preset=preset)
            Options.of(recipe.options, task, "paper")
    found = {name: resolve(method, task, "pvt", variant="paper") for name, task in TASKS.items()}
    assert {name: recipe.optimizer.lr for name, recipe in found.items()} == {
        "s4": 1e-4, "ms3": 1e-5, "avss": 1e-4,
    }  # fmt: skip
    assert {name: recipe.epochs for name, recipe in found.items()} == {"s4": 25, "ms3": 100, "avss": 100}
    assert {recipe.batch_size for recipe in found.values()} == {4}
    assert {recipe.optimizer.name for recipe in found.values()} == {"adam"}
