"""COMBO: behaviour of a small network, options, and loading of published checkpoints."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from avsbench_methods.combo import Combo
from avsbench_methods.combo.encoder import FrozenBatchNorm2d
from avsbench_methods.combo.fusion import BilateralFusion, audio_sources
from avsbench_methods.combo.loss import FeatureProducts, consistency_loss, frame_targets, neighbours
from avsbench_methods.combo.model import EMBEDDINGS, ComboModel, semantic_scores
from avsbench_methods.combo.options import Options
from avsbench_methods.combo.upstream import rename

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.files import read_json
from avsbench_harness.recipe.resolve import presets, resolve
from avsbench_harness.tasks import AVSS, MS3, S4, TASKS, Task
from avsbench_harness.testing.seeded import seeded_input, seeded_state

SMALL: dict[str, Any] = {
    "queries": 6,
    "dim": 64,
    "encoder_layers": 1,
    "encoder_ffn_dim": 64,
    "decoder_layers": 3,
    "ffn_dim": 64,
    "audio_mlp_dim": 32,
    "loss_points": 64,
}


def build(task: Task = S4, backbone: str = "resnet10t", **options: Any) -> ComboModel:
    torch.manual_seed(0)
    model = Combo().build(task, backbone, variant="released", **{**SMALL, **options})
    assert isinstance(model, ComboModel)
    return model.eval()


def batch(clips: int = 2, frames: int = 3, size: tuple[int, int] = (64, 64), **fields: Any) -> Batch:
    values = {
        "images": seeded_input(1, "images", (clips, frames, 3, *size)),
        "maskige": seeded_input(1, "maskige", (clips, frames, 3, *size)),
        "audio": seeded_input(1, "audio", (clips, frames, 128)),
    }
    return Batch(**{**values, **fields})


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


def test_a_batch_without_maskiges_is_refused_unless_none_are_wanted() -> None:
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


def test_one_encoder_for_both_is_smaller_and_differs() -> None:
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


@pytest.mark.parametrize(("frames", "queries"), [(5, 100), (10, 100), (3, 7), (40, 100)])
def test_scrambled_sounds_are_a_reshape_where_a_transpose_is_meant(frames: int, queries: int) -> None:
    sounds = torch.arange(frames)[:, None].expand(frames, queries)
    scrambled = audio_sources(frames, queries, "scrambled")
    assert torch.equal(scrambled, sounds.reshape(queries, frames).T)
    assert torch.equal(audio_sources(frames, queries, "own"), sounds)


def test_only_scrambled_sounds_let_frames_hear_each_other() -> None:
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
def test_frames_that_do_not_exist_are_zeros_and_disturb_nothing(task: Task, training: bool) -> None:
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


def test_a_batch_without_any_frame_is_all_zeros() -> None:
    clips = batch(
        valid=torch.zeros(2, 3, dtype=torch.bool), masks=torch.zeros(2, 3, 64, 64, dtype=torch.long)
    )
    with torch.no_grad():
        prediction, losses = build().predict(clips), build().losses(clips)
    assert prediction.shape == (2, 3, 64, 64)
    assert not prediction.any()
    assert not any(losses.values())


@pytest.mark.parametrize("task", [S4, AVSS])
def test_every_parameter_learns(task: Task) -> None:
    model = build(task).train()
    clips = batch()
    clips = replace(clips, masks=masks(clips, 71 if task is AVSS else 2))
    sum(model.losses(clips).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.slow
def test_the_loss_falls_and_training_repeats_itself() -> None:
    def train() -> list[float]:
        model = build(fusion_dropout=0.0).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        clips = batch(clips=1, frames=2)
        truth = torch.zeros(1, 2, 64, 64, dtype=torch.long)
        truth[..., :32] = 1
        history = []
        for step in range(6):
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


def test_class_and_mask_losses_see_annotated_frames_only() -> None:
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


def test_all_classes_at_once_and_silence_have_targets() -> None:
    mask = torch.arange(71).repeat_interleave(71)[: 71 * 71].view(1, 71, 71)
    (everything,) = frame_targets(mask, 71)
    assert everything.labels.tolist() == list(range(71))
    assert torch.equal(everything.masks.sum(dim=0), torch.ones(71, 71))
    (silence,) = frame_targets(torch.zeros(1, 4, 4, dtype=torch.long), 2)
    assert silence.labels.tolist() == [0]
    assert silence.masks.all()


def test_padding_makes_no_mask_but_counts_as_outside() -> None:
    mask = torch.tensor([[[0, 1], [255, 255]]])
    (target,) = frame_targets(mask, 2)
    assert target.labels.tolist() == [0, 1]
    assert target.masks.tolist() == [[[1, 0], [0, 0]], [[0, 1], [0, 0]]]


def test_neighbours_stay_within_clips_and_chunks() -> None:
    valid = torch.tensor([[True] * 5 + [False] * 5, [True] * 10])
    earlier, later = neighbours(valid, 5)
    assert (later - earlier == 1).all()
    assert earlier.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13]
    assert neighbours(valid, None)[0].tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13]
    gap = torch.tensor([[True, False, True, True]])
    assert [part.tolist() for part in neighbours(gap, 5)] == [[1], [2]]


def test_consistency_without_pairs_is_zero() -> None:
    single = neighbours(torch.ones(3, 1, dtype=torch.bool), 5)
    distances = FeatureProducts.of(torch.randn(3, 4, 4, 4), single).distances(torch.randn(3, 2, 4))
    assert float(consistency_loss(distances)) == 0


def test_frozen_norms_never_change() -> None:
    model = build().train()
    norms = [module for module in model.modules() if isinstance(module, FrozenBatchNorm2d)]
    assert len(norms) == 28  # 14 in each of two backbones
    # Kernels have four axes; whatever else learned would belong to a norm.
    assert {parameter.dim() for parameter in model.backbone.parameters()} == {4}
    before = [norm.running_mean.clone() for norm in norms]
    model(batch())
    assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before, strict=True))


def test_norms_that_learn_compute_the_same_at_rest() -> None:
    frozen, learning = build(), build(frozen_norm=False)
    state = frozen.state_dict()
    learning.load_state_dict(state, strict=False)
    counters = set(learning.state_dict()) - set(state)
    assert all(name.endswith("num_batches_tracked") for name in counters)
    assert counters
    with torch.no_grad():
        torch.testing.assert_close(learning(batch()).mask_logits, frozen(batch()).mask_logits)
        learning.train()
        learning(batch())
    assert learning.backbone.image.body.bn1.running_mean.any()


def fusion(**options: Any) -> tuple[BilateralFusion, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    module = BilateralFusion(Options(dim=64, **options)).eval()
    with torch.no_grad():
        for parameter in module.parameters():  # biases and gammas would hardly show
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter))
    return module, torch.randn(3, 64, 4, 6), torch.randn(3, 128)


def written_out(module: BilateralFusion, features: torch.Tensor, audio: torch.Tensor) -> tuple[Any, Any]:
    """The fusion step by step, with every pixel projected."""
    from avsbench_harness.nn.positions import sine_positions

    pixels = features.flatten(2).transpose(1, 2) + module.visual_embedding
    visual, sound = module.visual_norm(pixels), module.audio_norm(audio)
    place = sine_positions(4, 6, 64, normalize=True).flatten(0, 1)

    def heads(tokens: torch.Tensor) -> torch.Tensor:
        return tokens.unflatten(-1, (8, 32)).transpose(1, 2)  # (N,heads,L,32)

    query = heads(module.query(visual + place))
    key = heads(module.key(sound + module.audio_positions)[:, None])
    logits = query @ key.transpose(2, 3) / 32**0.5
    if module.limit is not None:
        logits = logits.clamp(-module.limit, module.limit)
    over_pixels = logits.softmax(dim=2)
    weights = over_pixels if module.visual_softmax == "positions" else logits.softmax(dim=3)
    to_pixels = weights @ heads(module.audio_value(sound)[:, None])
    to_sound = over_pixels.transpose(2, 3) @ heads(module.visual_value(visual))
    given = module.visual_out(to_pixels.transpose(1, 2).flatten(2))
    heard = module.audio_out(to_sound.transpose(1, 2).flatten(2)[:, 0])
    base = (visual, sound) if module.normed_residual else (pixels, audio)
    fused = base[0] + module.visual_gamma * given
    return fused.transpose(1, 2).unflatten(2, (4, 6)), base[1] + module.audio_gamma * heard


@pytest.mark.parametrize(
    "options", [{}, {"visual_softmax": "sounds"}, {"normed_residual": False}, {"attention_limit": 0.1}]
)
def test_fusion_is_what_its_equations_say(options: dict[str, Any]) -> None:
    module, features, audio = fusion(**options)
    with torch.no_grad():
        for found, expected in zip(
            module(features, audio), written_out(module, features, audio), strict=True
        ):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_fusion_options_matter_and_no_limit_is_a_high_one() -> None:
    module, features, audio = fusion()
    with torch.no_grad():
        released = module(features, audio)[0]
        for name, value in (("visual_softmax", "sounds"), ("normed_residual", False), ("limit", 0.1)):
            module, *_ = fusion()
            setattr(module, name, value)
            assert (module(features, audio)[0] - released).abs().max() > 1e-3, name
        module, *_ = fusion(attention_limit=None)
        assert torch.equal(module(features, audio)[0], released)


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


@functools.cache
def without_memory(backbone: str, task: str) -> ComboModel:
    """The released network as names and shapes only."""
    with torch.device("meta"):
        return Combo().build(TASKS[task], backbone, variant="released")  # type: ignore[return-value]


def test_pvt_drops_paths_in_training_as_released() -> None:
    def rate(model: ComboModel) -> float:
        return max((getattr(module, "drop_prob", None) or 0.0) for module in model.backbone.modules())

    assert rate(without_memory("pvt", "s4")) == pytest.approx(0.1)
    assert rate(build(backbone="pvt_v2_b0", drop_path_rate=0.3)) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"querys": 10}, "Unknown key 'querys' in the options of combo. Did you mean 'queries'?"),
        ({"dim": 48}, "'dim' is 48"),
        ({"queries": 0}, "'queries' is 0"),
        ({"audio_pairing": "none"}, "'audio_pairing' is 'none'"),
        ({"fusion_dropout": 1.0}, "'fusion_dropout' is 1.0"),
        ({"consistency_weight": float("inf")}, "'consistency_weight' is inf"),
        ({"consistency_chunk": 0}, "'consistency_chunk' is 0"),
        ({"shared_encoder": True, "use_maskige": False}, "shared_encoder has no effect"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(**options)
    assert message in str(caught.value)


def test_unknown_variants_are_refused() -> None:
    with pytest.raises(UsageError, match="variant of combo 'best'"):
        Combo().build(S4, "r50", variant="best")


def test_defaults_are_the_released_configuration() -> None:
    released = Options()
    assert (released.queries, released.dim, released.encoder_layers, released.decoder_layers) == (
        100,
        256,
        6,
        9,
    )
    assert (released.encoder_ffn_dim, released.ffn_dim, released.audio_mlp_dim) == (1024, 2048, 4096)
    assert (released.class_weight, released.mask_weight, released.dice_weight) == (2, 5, 5)
    assert (released.consistency_weight, released.consistency_chunk, released.no_object_weight) == (
        10,
        5,
        0.1,
    )
    assert (released.audio_pairing, released.visual_softmax, released.loss_points) == (
        "scrambled",
        "positions",
        12544,
    )


@pytest.mark.parametrize("task", ["s4", "avss"])
@pytest.mark.parametrize("backbone", ["r50", "pvt"])
def test_published_names_and_sizes(backbone: str, task: str, data: Path) -> None:
    model = without_memory(backbone, task)
    published = read_json(data / "combo" / f"{backbone}_s4.keys.json")
    renamed = [name for name in map(rename, published) if name is not None]
    assert sorted(renamed) == sorted(model.state_dict())
    expected = read_json(data / "combo" / "parameters.json")[f"{backbone}_{task}"]
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.fixture(scope="module")
def published(data: Path) -> dict[str, torch.Tensor]:
    return seeded_state(1, read_json(data / "combo" / "r50_s4.keys.json"))


@pytest.fixture(scope="module")
def released() -> ComboModel:
    return copy.deepcopy(without_memory("r50", "s4")).to_empty(device="cpu")


def test_checkpoints_with_audio_encoder_and_data_parallel_prefix_load(
    released: ComboModel, published: dict[str, torch.Tensor]
) -> None:
    state = {"module." + name: value for name, value in published.items()}
    state |= {"module.audio_backbone.features.0.weight": torch.zeros(1), "module.pixel_mean": torch.zeros(3)}
    released.load_upstream(state)
    assert released.backbone.maskige is not None
    for part, name in (
        (released.backbone.image, "backbone"),
        (released.backbone.maskige, "pre_sam_backbone"),
    ):
        assert torch.equal(part.body.layer2[1].conv2.weight, published[f"{name}.res3.1.conv2.weight"])
        assert torch.equal(part.body.bn1.running_var, published[f"{name}.stem.conv1.norm.running_var"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sem_seg_head.predictor.decoder_norm.bias": None}, r"1 missing \(decoder\.norm\.bias\)"),
        ({"sem_seg_head.new.weight": torch.zeros(1)}, r"1 unknown \(sem_seg_head\.new\.weight\)"),
        (
            {"sem_seg_head.predictor.class_embed.bias": torch.zeros(72)},
            r"s4 with r50: 1 of the wrong shape \(sem_seg_head\.predictor\.class_embed",
        ),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(
    released: ComboModel, published: dict[str, torch.Tensor], change: dict[str, Any], message: str
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
    method = Combo()
    assert set(presets(method)) == {"full", "smoke"}
    for preset in presets(method):
        recipe = resolve(method, task, backbone, preset=preset)
        assert recipe.image_size % 32 == 0
        Options.of(recipe.options, task, "released")
    full = resolve(method, task, backbone)
    assert (full.image_size, full.batch_size, full.clip_norm) == (224, 8, 0.01)
    assert full.iterations == (20_000 if task is MS3 else 90_000)
    assert full.precision == ("fp16" if task is AVSS else "fp32")
    optimizer = full.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.weight_decay) == ("adamw", 1e-4, 0.05)
    assert (optimizer.backbone_lr_scale, full.schedule.name, full.schedule.power) == (0.1, "poly", 0.9)


def test_the_model_card_names_every_option() -> None:
    card = Combo().card()
    assert [name for name in Options.model_fields if f"`{name}`" not in card] == []
    recipes = yaml.safe_load((Combo().folder / "recipes.yaml").read_text())
    assert [name for name in recipes if f"`{name}`" not in card] == []
