"""CATR as in the paper: behaviour of a small network."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from avsbench_methods.catr import CATR
from avsbench_methods.catr.loss import Targets, clip_losses
from avsbench_methods.catr.model import CATRModel, CATROutput
from torch import nn

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.tasks import AVSS, MS3, S4, TASKS
from avsbench_harness.testing.seeded import seeded_input

from .helpers_paper import SMALL, build, same

#: The rows of the paper's Tables 3 to 6 that change the network.
ROWS: dict[str, dict[str, Any]] = {
    "table 3, baseline": {"encoder": "none", "decoding": "direct", "audio": False},
    "table 3, decoupled A-V transformer": {"gate": "none", "decoding": "direct"},
    "table 3, blockwise-encoded gate": {"decoding": "direct"},
    "table 3, audio-queried decoding": {},
    "table 4, without audio": {"audio": False, "query_source": "video"},
    "table 5, without spatial fusion": {"spatial_fusion": False},
    "table 5, without temporal A-V fusion": {"temporal_av_fusion": False},
    "table 5, without temporal V-A fusion": {"temporal_va_fusion": False},
    "table 6, 2 channels": {"gate_channels": 2},
    "table 6, 32 of 64 channels": {"gate_channels": 32},
}


@functools.cache
def paper(task: str = "ms3") -> CATRModel:
    """The network with default options, for tests that do not modify it."""
    return build(TASKS[task])


def batch(clips: int = 2, frames: int = 3, size: int = 64, classes: int = 2, **fields: Any) -> Batch:
    draw = torch.Generator().manual_seed(3)
    fields.setdefault("masks", torch.randint(classes, (clips, frames, size, size), generator=draw))
    images = seeded_input(1, "images", (clips, frames, 3, size, size))
    return Batch(images, seeded_input(1, "audio", (clips, frames, 128)), **fields)


def parts(model: CATRModel) -> set[str]:
    found = {".".join(name.split(".")[:2]) for name in model.state_dict()}
    return found | {name.split(".")[3] for name in model.state_dict() if "encoder.layers" in name}


@torch.no_grad()
def test_without_blocks_a_frame_depends_on_its_own_audio_only() -> None:
    model, clips = build(encoder="none"), batch()
    audio = clips.audio.clone()
    audio[:, 1] *= -1
    before, after = model(clips), model(clips.with_audio(audio))
    change = (after.mask_logits - before.mask_logits).abs().amax(dim=(2, 3, 4))
    assert (change[:, 1] > 1e-4).all()
    assert (change[:, [0, 2]] < 1e-5).all()


@torch.no_grad()
def test_frames_interact_in_the_blocks() -> None:
    model, clips = paper(), batch()
    for part in ("images", "audio"):
        changed = getattr(clips, part).clone()
        changed[:, 2] *= -1
        after = model(Batch(**{"images": clips.images, "audio": clips.audio, part: changed}))
        assert (after.mask_logits - model(clips).mask_logits)[:, :2].abs().max() > 1e-4


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


@torch.no_grad()
def test_unannotated_frames_are_not_decoded() -> None:
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


@torch.no_grad()
def test_modules_that_the_rows_remove() -> None:
    everything = parts(paper())
    assert {"spatial", "to_video", "to_audio", "temporal_encoder.gate"} <= everything
    assert everything - parts(build(spatial_fusion=False)) == {"spatial"}
    assert everything - parts(build(temporal_av_fusion=False)) == {"to_video"}
    assert everything - parts(build(temporal_va_fusion=False)) == {"to_audio"}
    assert everything - parts(build(gate="none")) == {"temporal_encoder.gate"}
    without_audio = build(**ROWS["table 4, without audio"])
    audio = {"audio_projection.linear", "audio_projection.norm"}
    assert everything - parts(without_audio) == {"to_video", "to_audio", "decoder.queries", *audio}
    clips = batch()
    released = CATR().build(S4, "resnet10t", variant="released", audio=False, **SMALL).eval()
    for model in (without_audio, released, build(**ROWS["table 3, baseline"])):
        same(model.predict(clips), model.predict(clips.with_audio(-clips.audio)))


def test_the_baseline_is_backbone_aspp_and_fused_maps() -> None:
    found = {name.split(".")[0] for name in build(**ROWS["table 3, baseline"]).state_dict()}
    assert found == {"backbone", "levels", "video_projection", "mask_feature", "mask_head"}


@torch.no_grad()
def test_without_audio_the_features_of_the_coarsest_map_are_the_queries() -> None:
    model, clips = build(**ROWS["table 4, without audio"]), batch(clips=1, size=96)
    coarsest = model.levels[-1].register_forward_hook(lambda _, __, maps: seen.update(maps=maps))
    inputs = model.decoder.layers[0].register_forward_hook(lambda _, given, __: seen.update(given=given))
    seen: dict[str, Any] = {}
    output = model(clips)
    coarsest.remove()
    inputs.remove()
    states, positions = seen["given"][:2]
    assert states.shape == (3, 9, 64)
    assert output.reference_logits.shape == (1, 3, 9, 2)
    for query in range(9):
        row, column = divmod(query, 3)
        same(states[:, query], seen["maps"][:, :, row, column])
        # Half of the channels encode the row, the other half the column, from 0 to 2 pi (DETR).
        scale = 2 * math.pi / (3 + 1e-6)
        expected = [
            function((step + 1) * scale / 10000 ** (2 * pair / 32))
            for step in (row, column)
            for pair in range(16)
            for function in (math.sin, math.cos)
        ]
        same(positions[query], torch.tensor(expected))
    padded = model(batch(clips=1, size=96, valid=torch.zeros(1, 3, dtype=torch.bool)))
    assert padded.reference_logits.shape == (1, 3, 9, 2)


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
def test_a_clip_padded_to_ten_frames_equals_the_clip_of_five(task: str) -> None:
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
def test_losses_of_batches_without_targets_or_frames_are_finite(variant: str, lack: str) -> None:
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
