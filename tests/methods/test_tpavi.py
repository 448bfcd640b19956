"""TPAVI: its blocks against plain formulas, behaviour of a small network, options, published checkpoints."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from avsbench_methods.tpavi import TPAVI
from avsbench_methods.tpavi.decoder import FusionBlock
from avsbench_methods.tpavi.interaction import Interaction
from avsbench_methods.tpavi.loss import matching_loss, segmentation_loss
from avsbench_methods.tpavi.model import TPAVIModel
from avsbench_methods.tpavi.options import Options
from avsbench_methods.tpavi.upstream import rename
from torch import Tensor, nn

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.files import read_json
from avsbench_harness.recipe.resolve import presets, resolve
from avsbench_harness.tasks import AVSS, MS3, S4, TASKS, Task
from avsbench_harness.testing.seeded import seeded_input, seeded_state


@pytest.fixture(scope="session")
def tpavi_data(data: Path) -> Path:
    """What the published TPAVI computed; see the README there."""
    return data / "tpavi"


def build(task: Task = S4, *, heard: bool = True, **options: Any) -> TPAVIModel:
    """A small network; ``heard`` gives the interaction the gain that it learns in training."""
    torch.manual_seed(0)
    model = TPAVI().build(task, "resnet10t", variant="released", **{"dim": 16, **options})
    assert isinstance(model, TPAVIModel)
    for interaction in model.interactions:
        nn.init.constant_(interaction.out_norm.weight, 1000.0 if heard else 0.0)
    return model.eval()


def batch(clips: int = 2, frames: int = 3, size: tuple[int, int] = (64, 64), **fields: Any) -> Batch:
    images = seeded_input(1, "images", (clips, frames, 3, *size))
    return Batch(images, seeded_input(1, "audio", (clips, frames, 128)), **fields)


def part(whole: Batch, clips: slice, frames: slice) -> Batch:
    return Batch(whole.images[clips, frames], whole.audio[clips, frames])


def masks(like: Batch, classes: int = 2) -> Tensor:
    clips, frames, height, width = like.shape
    return torch.randint(classes, (clips, frames, height, width), generator=torch.Generator().manual_seed(3))


def supervised(task: Task, **fields: Any) -> Batch:
    clips = batch()
    return Batch(clips.images, clips.audio, masks=masks(clips, 71 if task is AVSS else 2), **fields)


def pixel_by_pixel(block: Interaction, pixels: Tensor, audio: Tensor) -> Tensor:
    """The interaction of one window as it is defined: a matrix of all pixels by all pixels."""
    clips, frames, height, width, dim = pixels.shape
    sound = block.align(audio)[:, :, None, None].expand(-1, -1, height, width, -1)
    theta, phi, values = (
        layer(part).reshape(clips, -1, dim // 2)
        for layer, part in ((block.theta, pixels), (block.phi, sound), (block.g, pixels))
    )
    matrix = theta @ phi.mT / (frames * height * width)
    read = block.out(matrix @ values).view(-1, height, width, dim).permute(0, 3, 1, 2)
    read = block.out_norm(read).permute(0, 2, 3, 1).view(pixels.shape)
    return block.norm(pixels + read)


@pytest.mark.parametrize("training", [False, True])
def test_the_interaction_is_a_non_local_block(training: bool) -> None:
    torch.manual_seed(0)
    block = Interaction(8, window=None, audio_bias=True).double().train(training)
    nn.init.normal_(block.out_norm.weight)
    pixels = torch.randn(2, 3, 4, 5, 8, dtype=torch.float64, requires_grad=True)
    audio = torch.randn(2, 3, 128, dtype=torch.float64, requires_grad=True)
    found, sound = block(pixels, audio, torch.ones(2, 3, dtype=torch.bool))
    expected = pixel_by_pixel(block, pixels, audio)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(sound, block.align(audio))
    leaves = (pixels, audio, *(p for name, p in block.named_parameters() if name != "out.bias"))
    for mine, theirs in zip(
        torch.autograd.grad(found.square().sum(), leaves),
        torch.autograd.grad(expected.square().sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_windows_and_missing_frames_bound_what_the_interaction_reads() -> None:
    torch.manual_seed(0)
    block = Interaction(8, window=3, audio_bias=True).double().eval()
    nn.init.normal_(block.out_norm.weight)
    valid = torch.tensor([[True, True, True, True, False, True, True]])
    pixels = torch.randn(1, 7, 2, 2, 8, dtype=torch.float64) * valid[..., None, None, None]
    audio = torch.randn(1, 7, 128, dtype=torch.float64)
    found, _ = block(pixels, audio, valid)
    for frames in ([0, 1, 2], [3, 5], [6]):
        torch.testing.assert_close(
            found[:, frames], pixel_by_pixel(block, pixels[:, frames], audio[:, frames])
        )


def test_a_window_without_frames_counts_all_of_them() -> None:
    # As in the published code, whose batch normalisation sees them in training.
    torch.manual_seed(0)
    block = Interaction(8, window=2, audio_bias=False).double().eval()
    nn.init.normal_(block.out_norm.weight)
    pixels, audio = torch.zeros(1, 2, 3, 3, 8).double(), torch.zeros(1, 2, 128).double()
    found, _ = block(pixels, audio, torch.zeros(1, 2, dtype=torch.bool))
    torch.testing.assert_close(found, pixel_by_pixel(block, pixels, audio))


@pytest.mark.parametrize("inplace", [True, False])
def test_fusion_adds_what_the_published_relu_leaves(inplace: bool) -> None:
    torch.manual_seed(0)
    block = FusionBlock(8, inplace, coarsest=False).double()
    level, coarse = torch.randn(2, 2, 8, 4, 4, dtype=torch.float64)

    def unit(module: nn.Module, maps: Tensor) -> Tensor:
        relu = nn.ReLU(inplace=inplace)
        return module.conv2(relu(module.conv1(relu(maps)))) + maps

    with torch.no_grad():
        found = block(level, coarse)
        merged = unit(block.unit, coarse + unit(block.level_unit, level.clone()))
    expected = F.interpolate(merged, scale_factor=2, mode="bilinear", align_corners=True)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("task", [S4, AVSS])
@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_shapes(task: Task, size: tuple[int, int]) -> None:
    model, clips = build(task), batch(size=size)
    height, width = size
    with torch.no_grad():
        output, prediction = model(clips), model.predict(clips)
    assert output.logits.shape == (2, 3, task.channels, height, width)
    assert [level.shape for level in output.features] == [
        (2, 3, 16, height // stride, width // stride) for stride in (4, 8, 16, 32)
    ]
    assert [sound.shape for sound in output.sounds] == [(2, 3, 16)] * 4
    if task.semantic:
        assert torch.equal(prediction, output.logits)
    else:
        torch.testing.assert_close(prediction, output.logits[:, :, 0].sigmoid())


def test_sides_that_are_no_multiples_of_32_are_refused() -> None:
    with pytest.raises(UsageError, match=r"multiples of 32, got 50x64 pixels.*image_size"):
        build()(batch(size=(64, 50)))


@torch.no_grad()
def test_frames_see_their_window_of_their_clip() -> None:
    model, clips = build(), batch(frames=7)
    together = model(clips).logits
    for clip, frames in itertools.product((0, 1), (slice(0, 5), slice(5, 7))):
        alone = model(part(clips, slice(clip, clip + 1), frames)).logits
        torch.testing.assert_close(alone[0], together[clip, frames], rtol=0, atol=1e-4)
    single = model(part(clips, slice(0, 1), slice(0, 1))).logits
    assert (single[0, 0] - together[0, 0]).abs().max() > 1e-3


@torch.no_grad()
def test_without_a_window_all_frames_see_each_other() -> None:
    clips = batch(clips=1, frames=7)
    audio = clips.audio.clone()
    audio[:, 6] += 1
    for window, sees in ((5, False), (None, True)):
        model = build(window=window)
        change = (model(clips.with_audio(audio)).logits - model(clips).logits).abs().amax(dim=(2, 3, 4))[0]
        assert (change[0] > 1e-4) == sees
        assert change[6] > 1e-4


@pytest.mark.parametrize("task", [S4, AVSS])
@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_frames_that_do_not_exist_are_zeros_and_disturb_nothing(task: Task, training: bool) -> None:
    model = build(task).train(training)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # in training all frames meet there
            module.eval()
    valid = torch.tensor([[True, True, False], [False, False, False]])
    clips = batch(valid=valid)
    clips.images[~valid] = float("nan")
    clips.audio[~valid] = float("nan")
    output, prediction = model(clips), model.predict(clips)
    for values in (output.logits, *output.features, *output.sounds, prediction):
        assert torch.isfinite(values).all()
        assert not values[~valid].any()
    alone = model(part(batch(), slice(0, 1), slice(0, 2)))
    torch.testing.assert_close(output.logits[:1, :2], alone.logits, rtol=0, atol=1e-4)


def test_in_training_missing_frames_count_in_the_batch_norms() -> None:
    valid = torch.arange(6)[None] < 3
    clips = batch(clips=1, frames=6, valid=valid)
    with_all, without = build(window=3).train(), build(window=3).train()
    with torch.no_grad():
        with_all(clips)
        without(part(clips, slice(0, 1), slice(0, 3)))
    for name in ("backbone.body.bn1.running_var", "interactions.0.out_norm.running_var"):
        one, other = (model.state_dict()[name] for model in (with_all, without))
        assert not torch.allclose(one, other), name


def test_a_batch_without_any_frame_is_all_zeros() -> None:
    clips = batch(valid=torch.zeros(2, 3, dtype=torch.bool))
    with torch.no_grad():
        output, prediction = build()(clips), build().predict(clips)
    assert prediction.shape == (2, 3, 64, 64)
    assert [level.shape[2:] for level in output.features] == [(16, s, s) for s in (16, 8, 4, 2)]
    assert not prediction.any()
    assert not output.logits.any()


@pytest.mark.parametrize("task", [S4, MS3, AVSS])
def test_a_batch_without_any_frame_teaches_nothing(task: Task) -> None:
    model = build(task).train()
    losses = model.losses(replace(supervised(task), valid=torch.zeros(2, 3, dtype=torch.bool)))
    assert set(losses) == ({"iou"} if task is S4 else {"iou", "avm"})
    sum(losses.values()).backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("task", [S4, MS3, AVSS])
def test_every_parameter_learns(task: Task) -> None:
    model = build(task).train()
    losses = model.losses(supervised(task))
    assert set(losses) == ({"iou"} if task is S4 else {"iou", "avm"})
    sum(losses.values()).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    # Exactly zero only inside timm's residual blocks, which begin with a gain of zero.
    idle = [name for name, gradient in gradients.items() if not gradient.any()]
    assert [name for name in idle if not name.startswith("backbone.body.layer")] == []


def test_losses_keep_to_the_frames_they_are_for() -> None:
    annotated = torch.zeros(2, 3, dtype=torch.bool)
    annotated[:, 0] = True
    for task, reaches in ((S4, True), (MS3, True), (AVSS, False)):
        model = build(task, avm="av")
        truth = supervised(task).masks
        elsewhere, there = truth.clone(), truth.clone()
        elsewhere[:, 1:] = 0
        there[:, 0] = 0
        first, second, third = (
            torch.stack(list(model.losses(supervised_with(task, change, annotated)).values())).detach()
            for change in (truth, elsewhere, there)
        )
        assert torch.equal(first, second)
        assert first[0] != third[0]
        # The matching loss needs no truth; only avss leaves frames without it out.
        with torch.no_grad():
            everywhere = model.losses(supervised(task))["avm"]
        assert torch.equal(first[1], everywhere) == reaches


def supervised_with(task: Task, truth: Tensor, annotated: Tensor) -> Batch:
    clips = supervised(task)
    return Batch(clips.images, clips.audio, masks=truth, annotated=annotated)


@pytest.mark.slow
@pytest.mark.parametrize("task", [S4, AVSS])
def test_leaving_out_frames_without_loss_changes_no_gradient(task: Task) -> None:
    annotated = torch.tensor([[True, False, False], [True, True, False]])
    one, other = build(task).train().double(), build(task).train().double()
    clips = supervised(task, annotated=annotated)
    clips = replace(clips, images=clips.images.double(), audio=clips.audio.double())
    sum(one.losses(clips).values()).backward()
    output = other(clips)  # all frames decoded
    losses = segmentation_loss(output.logits[annotated], clips.masks[annotated])
    if task is AVSS:
        levels = [level[annotated] for level in output.features]
        sounds = [sound[annotated] for sound in output.sounds]
        losses = losses + 0.5 * matching_loss(output.logits[annotated], levels, sounds, other.options)
    losses.backward()
    for (name, mine), theirs in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, msg=name)
    for (name, mine), theirs in zip(one.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, msg=name)


@pytest.mark.parametrize("task", [S4, AVSS])
def test_losses_without_annotated_frames_are_zero(task: Task) -> None:
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    model = build(task).train()
    losses = model.losses(supervised(task, annotated=nothing))
    assert {float(value.detach()) for value in losses.values()} == {0.0}
    sum(losses.values()).backward()


def test_weight_scales_the_matching_loss_and_none_drops_it() -> None:
    clips = supervised(MS3)
    with torch.no_grad():
        light, heavy, none = (
            build(MS3, **options).losses(clips)
            for options in ({"avm_weight": 0.1}, {"avm_weight": 0.5}, {"avm": "none"})
        )
    assert light["iou"] == heavy["iou"] == none["iou"]
    torch.testing.assert_close(5 * light["avm"], heavy["avm"])
    assert set(none) == {"iou"}


def matching(options: dict[str, Any], sounds: Tensor, features: Tensor, task: Task = MS3) -> float:
    """The matching loss on one level of 4x4 pixels, mask probability 1/2 everywhere."""
    chosen = Options.of({"avm_stages": [1], **options}, task, "released")
    channels = task.channels
    return matching_loss(torch.zeros(len(features), channels, 8, 8), [features], [sounds], chosen).item()


def test_vv_compares_frames_that_sound_alike() -> None:
    torch.manual_seed(0)
    features = torch.randn(3, 6, 4, 4)
    sounds = torch.tensor([[0.0], [3.0], [4.0]]).expand(-1, 6)
    means = features.mean(dim=(2, 3)) / 2
    options = {"avm": "vv", "avm_distance": "euclidean", "avm_sum": False}
    expected = F.pairwise_distance(means[[1, 2, 1]], means).mean().item()
    assert matching({**options, "vv_self_distance": 1e6}, sounds, features) == pytest.approx(expected)
    # Frames 1 and 2 are sqrt(6) apart, frame 0 is 3 sqrt(6) = 7.3 from the next: less than 7.3 added to the
    # distance from itself leaves it with itself.
    alone = F.pairwise_distance(means[[0, 2, 1]], means).mean().item()
    assert matching({**options, "vv_self_distance": 7}, sounds, features) == pytest.approx(alone)
    assert matching(options, sounds, features) == pytest.approx(expected)
    assert matching(options, 2 * sounds, features) == pytest.approx(alone)


def test_vv_with_kl_ignores_its_pick_on_avss_as_released() -> None:
    torch.manual_seed(0)
    features, sounds = torch.randn(3, 6, 4, 4), torch.randn(3, 6)
    vv, av, mended = (
        matching(options, sounds, features, AVSS)
        for options in ({"avm": "vv"}, {"avm": "av"}, {"avm": "vv", "vv_reads_audio": False})
    )
    assert vv == av
    assert mended != av


def test_silent_frames_and_all_classes_give_finite_losses() -> None:
    clips = batch(clips=1, frames=10)
    truth = torch.arange(10 * 64 * 64).view(1, 10, 64, 64) % 71
    for options in ({}, {"avm_distance": "cosine", "avm_hard_mask": True, "avm_normalise": True}):
        losses = build(AVSS, **options).losses(
            Batch(clips.images, torch.zeros_like(clips.audio), masks=truth)
        )
        assert all(torch.isfinite(value) for value in losses.values())


def test_weights_start_as_published() -> None:
    model, clips = build(heard=False), batch()
    for projection in model.projections:
        for conv in projection.convs:
            assert float(conv.weight.detach().std()) == pytest.approx(0.01, rel=0.1)
    with torch.no_grad():  # the interaction begins as a mere normalisation
        assert torch.equal(model(clips).logits, model(clips.with_audio(-clips.audio)).logits)


@functools.cache
def without_memory(backbone: str, task: str = "s4") -> TPAVIModel:
    """The released network as names and shapes only."""
    with torch.device("meta"):
        return TPAVI().build(TASKS[task], backbone, variant="released")  # type: ignore[return-value]


def test_pvt_drops_paths_in_training_as_released() -> None:
    rates = [getattr(module, "drop_prob", None) or 0.0 for module in without_memory("pvt").backbone.modules()]
    assert max(rates) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": 10}, "Unknown key 'windows' in the options of tpavi. Did you mean 'window'?"),
        ({"dim": 20}, "'dim' is 20"),
        ({"window": 0}, "'window' is 0"),
        ({"avm": "va"}, "'avm' is 'va'"),
        ({"avm": "av", "avm_stages": []}, "'avm_stages' is []"),
        ({"avm": "av", "avm_stages": [0]}, "'avm_stages.0' is 0"),
        ({"avm": "av", "avm_weight": -0.1}, "'avm_weight' is -0.1"),
        ({"drop_path_rate": 1}, "'drop_path_rate' is 1"),
        ({"avm_weight": 0.5}, "avm_weight has no effect without a matching loss (avm: none)"),
        ({"avm": "av", "vv_self_distance": 5}, "vv_self_distance has no effect with avm: av"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Options.of(options, S4, "released")
    assert message in str(caught.value)


def test_variant_and_pool_without_effect_are_refused() -> None:
    with pytest.raises(UsageError, match="avm_pool has no effect on avss"):
        Options.of({"avm_pool": "logits"}, AVSS, "released")
    with pytest.raises(UsageError, match="variant of tpavi 'papers'"):
        TPAVI().build(S4, "r50", variant="papers")


def test_defaults_are_the_released_configuration() -> None:
    names = ("avm", "avm_distance", "avm_normalise", "avm_hard_mask", "avm_pool", "avm_sum", "audio_bias")
    released = {
        task: tuple(getattr(Options.of({}, TASKS[task], "released"), name) for name in names)
        for task in TASKS
    }
    assert released == {
        "s4": ("none", "cosine", True, True, "probabilities", False, True),
        "ms3": ("av", "kl", False, False, "logits", True, True),
        "avss": ("av", "kl", False, False, "logits", False, False),
    }
    shared = Options.of({}, MS3, "released")
    assert (shared.dim, shared.window, shared.inplace_relu, shared.avm_weight) == (256, 5, True, 0.5)


def published_shapes(folder: Path, backbone: str) -> dict[str, list[int]]:
    return read_json(folder / f"{backbone}_s4.keys.json")


@pytest.mark.parametrize(("backbone", "parameters"), [("r50", 68_157_697), ("pvt", 100_140_417)])
def test_published_names_and_sizes(backbone: str, parameters: int, tpavi_data: Path) -> None:
    model = without_memory(backbone)
    renamed = [name for name in map(rename, published_shapes(tpavi_data, backbone)) if name is not None]
    assert sorted(renamed) == sorted(model.state_dict())
    # The published count without VGGish, less what never runs: a unit of path4, the second branch of ResNet.
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert sum(parameter.numel() for parameter in model.interactions.parameters()) == 663_040


def test_avss_has_more_classes_and_no_bias_on_the_sound() -> None:
    model = without_memory("r50", "avss")
    # The published 91,402,247 without what never runs.
    assert sum(parameter.numel() for parameter in model.parameters()) == 91_402_247 - 23_243_264
    assert sum(parameter.numel() for parameter in model.interactions.parameters()) == 662_016


@pytest.fixture(scope="module")
def published(tpavi_data: Path) -> dict[str, Tensor]:
    shapes = published_shapes(tpavi_data, "r50")
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def released() -> TPAVIModel:
    with torch.device("meta"):
        model = TPAVI().build(S4, "r50", variant="released")
    return model.to_empty(device="cpu")  # type: ignore[return-value]


def test_checkpoints_with_audio_encoder_and_data_parallel_prefix_load(
    released: TPAVIModel, published: dict[str, Tensor]
) -> None:
    names = ("resnet.layer3_1.0.conv1.weight", "tpavi_b2.W_z.0.weight", "path1.resConfUnit2.conv1.bias")
    drawn = seeded_state(1, {name: published[name].shape for name in names})
    state = {"module." + name: value for name, value in {**published, **drawn}.items()}
    released.load_upstream({**state, "module.audio_backbone.features.0.weight": torch.zeros(1)})
    assert torch.equal(released.backbone.body.layer3[0].conv1.weight, drawn[names[0]])
    assert torch.equal(released.interactions[1].out.weight, drawn[names[1]].flatten(1))
    assert torch.equal(released.decoder.blocks[0].unit.conv1.bias, drawn[names[2]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv4.conv2d_list.0.bias": None}, r"1 missing \(projections\.3\.convs\.0\.bias\)"),
        ({"path5.new.weight": torch.zeros(1)}, r"1 unknown \(path5\.new\.weight\)"),
        (
            {"output_conv.4.bias": torch.zeros(71)},
            r"tpavi for s4 with r50: 1 of the wrong shape \(output_conv\.4\.bias",
        ),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(
    released: TPAVIModel, published: dict[str, Tensor], change: dict[str, Any], message: str
) -> None:
    state = {name: value for name, value in {**published, **change}.items() if value is not None}
    with pytest.raises(UsageError, match=message):
        released.load_upstream(state)


def test_backbones_without_checkpoints_say_so() -> None:
    with pytest.raises(UsageError, match="no published weights with the backbone resnet10t"):
        build().load_upstream({})


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("backbone", ["r50", "pvt"])
def test_recipes_are_valid_and_follow_the_release(task: Task, backbone: str) -> None:
    method = TPAVI()
    assert set(presets(method)) == {"full", "smoke"}
    for preset in presets(method):
        recipe = resolve(method, task, backbone, preset=preset)
        assert recipe.image_size % 32 == 0
        Options.of(recipe.options, task, "released")
    full = resolve(method, task, backbone)
    assert (full.image_size, full.batch_size, full.epochs) == (
        224,
        4,
        {"s4": 15, "ms3": 30, "avss": 60}[task.name],
    )
    assert full.train_fit == ("crop" if task is AVSS else "squeeze")
    assert (full.optimizer.name, full.optimizer.lr, full.optimizer.weight_decay) == ("adam", 1e-4, 0)
    assert (full.schedule.name, full.backbone.freeze_epochs, full.clip_norm) == ("constant", 0, None)
    assert full.backbone.drop_path_rate == (0.1 if backbone == "pvt" else None)


def test_the_model_card_names_every_option() -> None:
    card = TPAVI().card()
    assert [name for name in Options.model_fields if f"`{name}`" not in card] == []
    recipes = yaml.safe_load((TPAVI().folder / "recipes.yaml").read_text())
    assert [name for name in recipes if f"`{name}`" not in card] == []
