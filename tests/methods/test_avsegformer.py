"""AVSegFormer: behaviour of a small network, options, and loading of published checkpoints."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from avsbench_methods.avsegformer import AVSegFormer
from avsbench_methods.avsegformer.model import AVSegFormerModel
from avsbench_methods.avsegformer.options import Options
from avsbench_methods.avsegformer.upstream import rename

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.files import read_json
from avsbench_harness.recipe.resolve import presets, resolve
from avsbench_harness.tasks import AVSS, MS3, S4, TASKS, Task
from avsbench_harness.testing.seeded import seeded_input, seeded_state

SMALL: dict[str, Any] = {
    "queries": 6,
    "dim": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "generator_layers": 2,
    "ffn_dim": 64,
    "mask_mlp_dim": 64,
    "mask_channels": 16,
}


def build(task: Task = S4, backbone: str = "resnet18", **options: Any) -> AVSegFormerModel:
    torch.manual_seed(0)
    model = AVSegFormer().build(task, backbone, variant="released", **{**SMALL, **options})
    assert isinstance(model, AVSegFormerModel)
    return model.eval()


def batch(clips: int = 2, frames: int = 3, size: tuple[int, int] = (64, 64), **fields: Any) -> Batch:
    images = seeded_input(1, "images", (clips, frames, 3, *size))
    return Batch(images, seeded_input(1, "audio", (clips, frames, 128)), **fields)


def masks(like: Batch, classes: int = 2) -> torch.Tensor:
    clips, frames, height, width = like.shape
    return torch.randint(classes, (clips, frames, height, width), generator=torch.Generator().manual_seed(3))


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


def test_sound_changes_the_masks() -> None:
    model, clips = build(), batch()
    with torch.no_grad():
        change = model(clips).logits - model(clips.with_audio(-clips.audio)).logits
    assert change.abs().max() > 1e-3


@pytest.mark.parametrize("task", [S4, AVSS])
@pytest.mark.parametrize("training", [False, True])
def test_frames_that_do_not_exist_are_zeros_and_disturb_nothing(task: Task, training: bool) -> None:
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


def test_a_batch_without_any_frame_is_all_zeros() -> None:
    clips = batch(valid=torch.zeros(2, 3, dtype=torch.bool))
    with torch.no_grad():
        prediction = build().predict(clips)
    assert prediction.shape == (2, 3, 64, 64)
    assert not prediction.any()


@pytest.mark.parametrize("task", [S4, MS3, AVSS])
def test_every_parameter_learns(task: Task) -> None:
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
def test_losses_see_annotated_frames_only(task: Task) -> None:
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


def test_without_learnable_queries_the_generator_feeds_the_decoder_alone() -> None:
    model, plain = build(), build(learnable_queries=False)
    missing = set(model.state_dict()) - set(plain.state_dict())
    assert missing == {"decoder_queries"}
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if name not in missing})
    with torch.no_grad():
        difference = plain(batch()).logits - model(batch()).logits
        model.decoder_queries.zero_()
        torch.testing.assert_close(plain(batch()).logits, model(batch()).logits)
    assert difference.abs().max() > 0


def test_weights_start_as_published() -> None:
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


@functools.cache
def without_memory(backbone: str) -> AVSegFormerModel:
    """The released network as names and shapes only."""
    with torch.device("meta"):
        return AVSegFormer().build(S4, backbone, variant="released")  # type: ignore[return-value]


def drop_path_rate(model: AVSegFormerModel) -> float:
    """Of the deepest block, the largest."""
    return max((getattr(module, "drop_prob", None) or 0.0) for module in model.backbone.modules())


def test_pvt_drops_paths_in_training_as_released() -> None:
    assert drop_path_rate(without_memory("pvt")) == pytest.approx(0.1)
    assert drop_path_rate(build(backbone="pvt_v2_b0")) == 0
    assert drop_path_rate(build(backbone="pvt_v2_b0", drop_path_rate=0.3)) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"querys": 10}, "Unknown key 'querys' in the options of avsegformer. Did you mean 'queries'?"),
        ({"dim": 48}, "'dim' is 48"),
        ({"queries": 0}, "'queries' is 0"),
        ({"encoder_layers": 1.5}, "'encoder_layers' is 1.5"),
        ({"dropout": 1.0}, "'dropout' is 1.0"),
        ({"mix_weight": -0.1}, "'mix_weight' is -0.1"),
        ({"mix_weight": float("inf")}, "'mix_weight' is inf"),
        ({"loss": "focal"}, "'loss' is 'focal'"),
        ({"drop_path_rate": 1}, "'drop_path_rate' is 1"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(**options)
    assert message in str(caught.value)


def test_losses_of_other_tasks_and_unknown_variants_are_refused() -> None:
    with pytest.raises(UsageError, match="loss is 'bce', but avss is trained with dice or cross_entropy"):
        build(AVSS, loss="bce")
    with pytest.raises(UsageError, match="loss is 'cross_entropy', but s4 is trained with dice or bce"):
        build(loss="cross_entropy")
    with pytest.raises(UsageError, match="variant of avsegformer 'papers'"):
        AVSegFormer().build(S4, "r50", variant="papers")


def test_defaults_are_the_released_configuration() -> None:
    released = Options()
    assert (released.queries, released.dim, released.ffn_dim, released.dropout) == (300, 256, 2048, 0.1)
    assert (released.encoder_layers, released.decoder_layers, released.generator_layers) == (6, 6, 6)
    assert (released.loss, released.mix_weight, released.learnable_queries) == ("dice", 0.1, True)


@pytest.mark.parametrize(("backbone", "parameters"), [("r50", 54_596_032), ("pvt", 111_810_112)])
def test_published_names_and_sizes(backbone: str, parameters: int, avsegformer_data: Path) -> None:
    model = without_memory(backbone)
    published = read_json(avsegformer_data / f"{backbone}_s4.keys.json")
    renamed = [name for name in map(rename, published) if name is not None]
    assert sorted(renamed) == sorted(model.state_dict())
    # The published count without VGGish, less what never runs: fpn, attn_fc, the second branch of ResNet.
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.fixture(scope="module")
def published(avsegformer_data: Path) -> dict[str, torch.Tensor]:
    return seeded_state(1, read_json(avsegformer_data / "r50_s4.keys.json"))


@pytest.fixture(scope="module")
def released() -> AVSegFormerModel:
    return AVSegFormer().build(S4, "r50", variant="released")  # type: ignore[return-value]


def test_checkpoints_with_audio_encoder_and_data_parallel_prefix_load(
    released: AVSegFormerModel, published: dict[str, torch.Tensor]
) -> None:
    state = {"module." + name: value for name, value in published.items() if not name.startswith("head.fpn")}
    released.load_upstream({**state, "module.vggish.features.0.weight": torch.zeros(1)})
    assert torch.equal(released.audio_projection.bias, published["audio_proj.bias"])
    assert torch.equal(
        released.backbone.body.layer3[0].conv1.weight, published["backbone.layer3_1.0.conv1.weight"]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head.level_embed": None}, r"1 missing \(encoder\.level_embedding\)"),
        ({"head.new.weight": torch.zeros(1)}, r"1 unknown \(head\.new\.weight\)"),
        (
            {"head.fc.4.weight": torch.zeros(71, 32, 1, 1)},
            r"s4 with r50: 1 of the wrong shape \(head\.fc\.4\.weight",
        ),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(
    released: AVSegFormerModel, published: dict[str, torch.Tensor], change: dict[str, Any], message: str
) -> None:
    state = {name: value for name, value in {**published, **change}.items() if value is not None}
    with pytest.raises(UsageError, match=message):
        released.load_upstream(state)


def test_backbones_without_checkpoints_say_so() -> None:
    with pytest.raises(UsageError, match="no published weights with the backbone resnet18"):
        build().load_upstream({})


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("backbone", ["r50", "pvt"])
def test_recipes_are_valid_and_follow_the_release(task: Task, backbone: str) -> None:
    method = AVSegFormer()
    assert set(presets(method)) == {"full", "smoke"}
    for preset in presets(method):
        recipe = resolve(method, task, backbone, preset=preset)
        assert recipe.image_size % 32 == 0
        Options.of(recipe.options, task, "released")
    full = resolve(method, task, backbone)
    sizes = {"s4": (512, 30, 5, 2), "ms3": (512, 60, 10, 2), "avss": (224, 30, 0, 4)}
    assert (full.image_size, full.epochs, full.backbone.freeze_epochs, full.batch_size) == sizes[task.name]
    assert full.train_fit == ("crop" if task is AVSS else "squeeze")
    assert (full.optimizer.lr, full.schedule.name, full.clip_norm) == (2e-5, "constant", None)
    assert full.backbone.drop_path_rate == (0.1 if backbone == "pvt" else None)
    # The published loop counts epochs from 0 and starts at epoch 10.
    assert (full.validation.every, full.validation.first) == ((2, 11) if task is AVSS else (1, 1))


def test_the_model_card_names_every_option(avsegformer_data: Path) -> None:
    card = AVSegFormer().card()
    assert [name for name in Options.model_fields if f"`{name}`" not in card] == []
    recipes = yaml.safe_load((AVSegFormer().folder / "recipes.yaml").read_text())
    assert [name for name in recipes if f"`{name}`" not in card] == []
