"""AVSegFormer as released: behaviour of a small network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from avsbench_methods.avsegformer.model import AVSegFormerModel

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.tasks import AVSS, MS3, S4, Task
from avsbench_harness.testing.seeded import seeded_input

from .helpers import build, without_memory


def batch(clips: int = 2, frames: int = 3, size: tuple[int, int] = (64, 64), **fields: Any) -> Batch:
    images = seeded_input(1, "images", (clips, frames, 3, *size))
    return Batch(images, seeded_input(1, "audio", (clips, frames, 128)), **fields)


def masks(like: Batch, classes: int = 2) -> torch.Tensor:
    clips, frames, height, width = like.shape
    return torch.randint(classes, (clips, frames, height, width), generator=torch.Generator().manual_seed(3))


def drop_path_rate(model: AVSegFormerModel) -> float:
    """Return the largest drop path rate, that of the deepest block."""
    return max((getattr(module, "drop_prob", None) or 0.0) for module in model.backbone.modules())


@pytest.mark.parametrize("task", [S4, AVSS])
@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_shapes(task: Task, size: tuple[int, int]) -> None:
    model, clips = build(task), batch(size=size)
    height, width = size
    with torch.no_grad():
        output, prediction = model(clips), model.predict(clips)
    assert output.logits.shape == (2, 3, task.channels, height, width)
    assert output.mask_feature.shape == (2, 3, 64, height // 4, width // 4)
    if task.semantic:
        assert torch.equal(prediction, output.logits)
    else:
        torch.testing.assert_close(prediction, output.logits[:, :, 0].sigmoid())


def test_sides_that_are_no_multiples_of_32_are_refused() -> None:
    with pytest.raises(UsageError, match=r"multiples of 32, got 50x64 pixels.*image_size"):
        build()(batch(size=(64, 50)))


def test_frames_are_independent_and_one_frame_is_enough() -> None:
    model, clips = build(), batch()
    with torch.no_grad():
        together = model(clips).logits
        for clip, frame in ((0, 0), (1, 2)):
            part = (slice(clip, clip + 1), slice(frame, frame + 1))
            alone = model(Batch(clips.images[part], clips.audio[part])).logits
            torch.testing.assert_close(alone, together[part], rtol=0, atol=1e-5)


def test_the_audio_changes_the_masks() -> None:
    model, clips = build(), batch()
    with torch.no_grad():
        change = model(clips).logits - model(clips.with_audio(-clips.audio)).logits
    assert change.abs().max() > 1e-3


@pytest.mark.parametrize("task", [S4, AVSS])
@pytest.mark.parametrize("training", [False, True])
def test_padded_frames_are_zero_and_change_nothing(task: Task, training: bool) -> None:
    model = build(task, dropout=0.0, drop_path_rate=0.0).train(training)
    for module in model.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # the one place where frames meet
            module.eval()
    valid = torch.tensor([[True, True, False], [True, False, False]])
    clips = batch(valid=valid)
    clips.images[~valid] = float("nan")
    with torch.no_grad():
        output, prediction = model(clips), model.predict(clips)
        whole = model(batch())
    assert not output.logits[~valid].any()
    assert not output.mask_feature[~valid].any()
    assert not prediction[~valid].any()
    torch.testing.assert_close(output.logits[valid], whole.logits[valid], rtol=0, atol=1e-5)


def test_a_batch_without_valid_frames_is_zero() -> None:
    clips = batch(valid=torch.zeros(2, 3, dtype=torch.bool))
    with torch.no_grad():
        prediction = build().predict(clips)
    assert prediction.shape == (2, 3, 64, 64)
    assert not prediction.any()


@pytest.mark.parametrize("task", [S4, MS3, AVSS])
def test_every_parameter_has_a_gradient(task: Task) -> None:
    model = build(task).train()
    clips = batch()
    clips = Batch(
        clips.images, clips.audio, masks=masks(clips, task.channels + 1 if task is not AVSS else 71)
    )
    sum(model.losses(clips).values()).backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert idle == []
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("task", [S4, AVSS])
def test_losses_use_annotated_frames_only(task: Task) -> None:
    model, clips = build(task), batch()
    annotated = torch.zeros(2, 3, dtype=torch.bool)
    annotated[:, 0] = True
    truth = masks(clips)

    def losses(truth: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            return model.losses(Batch(clips.images, clips.audio, masks=truth, annotated=annotated))

    first = losses(truth)
    elsewhere, there = truth.clone(), truth.clone()
    elsewhere[:, 1:] = 0
    there[:, 0] = 0
    assert losses(elsewhere) == first
    assert all(losses(there)[name] != first[name] for name in ("iou", "mix"))


def test_losses_without_annotated_frames_are_zero() -> None:
    clips = batch()
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    with torch.no_grad():
        losses = build().losses(Batch(clips.images, clips.audio, masks=masks(clips), annotated=nothing))
    assert {name: float(value) for name, value in losses.items()} == {"iou": 0.0, "mix": 0.0}


def test_mix_weight_scales_the_mixing_loss() -> None:
    clips = batch()
    clips = Batch(clips.images, clips.audio, masks=masks(clips))
    with torch.no_grad():
        light, heavy = (build(mix_weight=weight).losses(clips) for weight in (0.1, 0.5))
    assert light["iou"] == heavy["iou"]
    torch.testing.assert_close(5 * light["mix"], heavy["mix"])


def test_without_learnable_queries_the_decoder_uses_the_generators_queries() -> None:
    model, plain = build(), build(learnable_queries=False)
    missing = set(model.state_dict()) - set(plain.state_dict())
    assert missing == {"decoder_queries"}
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if name not in missing})
    with torch.no_grad():
        difference = plain(batch()).logits - model(batch()).logits
        model.decoder_queries.zero_()
        torch.testing.assert_close(plain(batch()).logits, model(batch()).logits)
    assert difference.abs().max() > 0


def test_initial_weights_are_as_published() -> None:
    model = build()
    for weight in (
        model.query_generator.queries,
        model.mask_head.mlp_hidden.weight,
        model.mixer.kv_proj.weight,
    ):
        bound = (6 / sum(weight.shape)) ** 0.5
        assert 0.9 * bound < float(weight.detach().abs().max()) <= bound
    assert not model.encoder.layers[0].self_attn.sampling_offsets.weight.any()
    assert float(model.encoder.level_embedding.detach().std()) == pytest.approx(1, abs=0.2)


def test_pvt_drops_paths_in_training_as_released() -> None:
    assert drop_path_rate(without_memory("pvt")) == pytest.approx(0.1)
    assert drop_path_rate(build(backbone="pvt_v2_b0")) == 0
    assert drop_path_rate(build(backbone="pvt_v2_b0", drop_path_rate=0.3)) == pytest.approx(0.3)
