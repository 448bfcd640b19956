"""COMBO as its paper describes it: equations 3-7, the rows of tables 3-7, and input at the edges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from avsbench_methods.combo import Combo
from avsbench_methods.combo.encoder import ChannelWeights
from avsbench_methods.combo.fusion import AudioQueries, BilateralFusion
from avsbench_methods.combo.loss import FeatureProducts, consistency_loss, neighbours
from avsbench_methods.combo.model import ComboModel, sound_probability
from avsbench_methods.combo.options import PAPER, Options

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.nn.positions import sine_positions
from avsbench_harness.recipe.resolve import resolve
from avsbench_harness.tasks import AVSS, MS3, S4, Task

SMALL: dict[str, Any] = {
    "queries": 6, "dim": 64, "encoder_layers": 1, "encoder_ffn_dim": 64, "decoder_layers": 3, "ffn_dim": 64,
    "audio_mlp_dim": 32, "loss_points": 64,
}  # fmt: skip
VARIANTS = Combo.variants


def build(task: Task = S4, variant: str = "paper", **options: Any) -> ComboModel:
    torch.manual_seed(0)
    model = Combo().build(task, "resnet10t", variant=variant, **{**SMALL, **options})
    assert isinstance(model, ComboModel)
    return model.eval()


def batch(clips: int = 1, frames: int = 2, side: int = 64, **values: Any) -> Batch:
    draw = torch.Generator().manual_seed(1)
    shape = (clips, frames, 3, side, side)
    masks = torch.zeros(clips, frames, side, side, dtype=torch.int64)
    masks[..., : side // 2] = 1
    default = {
        "images": torch.randn(shape, generator=draw),
        "maskige": torch.randn(shape, generator=draw),
        "audio": torch.rand(clips, frames, 128, generator=draw),
        "masks": masks,
    }
    return Batch(**{**default, **values})


def losses(model: ComboModel, clips: Batch) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return model.losses(clips)


def part(seed: int = 0, **options: Any) -> tuple[BilateralFusion, torch.Tensor, torch.Tensor]:
    """A fusion with parameters large enough to show, a map and sounds."""
    torch.manual_seed(seed)
    module = BilateralFusion(Options(**{**PAPER, "dim": 64, **options})).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter))
    return module, torch.randn(3, 64, 4, 6), torch.randn(3, 128)


def equations_4_and_5(
    module: BilateralFusion, features: torch.Tensor, audio: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Frame by frame, with the weights of the module and nothing else of it."""
    place = sine_positions(4, 6, 64, normalize=True).flatten(0, 1)
    state = module.state_dict()

    def linear(name: str, tokens: torch.Tensor) -> torch.Tensor:
        return F.linear(tokens, state[f"{name}.weight"], state[f"{name}.bias"])

    maps, sounds = [], []
    for frame, sound in zip(features, audio, strict=True):
        pixels = frame.flatten(1).T
        p, f = pixels + place, sound[None] + state["audio_positions"]
        logits = linear("query", p) @ linear("key", f).T / math.sqrt(256)  # (P,1)
        to_pixels = linear("visual_out", logits.softmax(dim=1) @ linear("audio_value", f))
        to_sound = linear("audio_out", logits.T.softmax(dim=1) @ linear("visual_value", p))
        maps.append((pixels + to_pixels).T.view(64, 4, 6))
        sounds.append(sound + to_sound[0])
    return torch.stack(maps), torch.stack(sounds)


@pytest.mark.parametrize("seed", [0, 1])
def test_fusion_is_equations_4_and_5(seed: int) -> None:
    module, features, audio = part(seed)
    with torch.no_grad():
        found, expected = module(features, audio), equations_4_and_5(module, features, audio)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("mode", ["visual", "audio"])
def test_a_single_direction_is_that_half_of_both(mode: str, variant: str) -> None:
    base = {} if variant == "paper" else {name: Options.model_fields[name].default for name in PAPER}
    both, features, audio = part(**base)
    one, *_ = part(**base, fusion=mode)
    one.load_state_dict({name: both.state_dict()[name] for name in one.state_dict()})
    with torch.no_grad():
        full, half = both(features, audio), one(features, audio)
    changed, kept = (0, 1) if mode == "visual" else (1, 0)
    torch.testing.assert_close(half[changed], full[changed])
    assert half[kept] is (features, audio)[kept]
    assert (full[kept] - half[kept]).abs().max() > 1e-2


@pytest.mark.parametrize(
    "options",
    [
        {"fusion_heads": 8},
        {"fusion_norm": True},
        {"fusion_norm": True, "normed_residual": False},
        {"fusion_level_embedding": True},
        {"fusion_positions": "logits"},
        {"fusion_gamma": 1e-4},
        {"visual_softmax": "positions"},
        {"attention_limit": 0.1},
    ],
    ids=str,
)
def test_every_option_of_the_fusion_changes_its_result(options: dict[str, Any]) -> None:
    paper, features, audio = part()
    other, *_ = part(**options)
    state = other.state_dict()
    state.update({name: value for name, value in paper.state_dict().items() if name in state})
    other.load_state_dict(state)
    with torch.no_grad():
        pairs = zip(paper(features, audio), other(features, audio), strict=True)
        assert max((one - two).abs().max() for one, two in pairs) > 1e-3


def test_gamma_starts_where_it_is_told_to() -> None:
    module = BilateralFusion(Options(dim=64, fusion_gamma=0.5))
    assert module.visual_gamma is not None
    assert module.visual_gamma.eq(0.5).all()
    assert [name for name, _ in part()[0].named_parameters() if "gamma" in name] == []


def test_channel_weights_are_equation_3() -> None:
    torch.manual_seed(0)
    module = ChannelWeights([3], "linear")
    maskige, image = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    linear = module[0].linear
    with torch.no_grad():
        (found,) = module([image], [maskige])
        for frame in range(2):
            mean = maskige[frame].flatten(1).mean(dim=1)
            for channel in range(3):
                weight = sum(linear.weight[channel, k] * mean[k] for k in range(3)) + linear.bias[channel]
                expected = image[frame, channel] + weight * maskige[frame, channel]
                torch.testing.assert_close(found[frame, channel], expected)


def test_queries_all_are_the_sound_alone_and_add_adds_learned_ones() -> None:
    options = {**PAPER, "queries": 5, "dim": 64, "audio_mlp_dim": 16}
    torch.manual_seed(0)
    alone = AudioQueries(Options(**options, audio_queries="all"))
    added = AudioQueries(Options(**options, audio_queries="add"))
    added.load_state_dict({**added.state_dict(), **alone.state_dict()})
    sounds = torch.randn(3, 128)
    with torch.no_grad():
        heard = alone.mlp(sounds)
        for frame in range(3):  # every query of a frame hears that frame
            assert torch.equal(alone(sounds)[frame], heard[frame].expand(5, -1))
            assert added.queries is not None
            torch.testing.assert_close(added(sounds)[frame], heard[frame] + added.queries)
    assert alone.queries is None


def angles(*turns: float) -> torch.Tensor:
    """Unit vectors in the plane, each turned from the one before."""
    total = torch.tensor(turns).cumsum(0)
    return torch.stack((total.cos(), total.sin()), dim=1)


def turned(vectors: torch.Tensor, pairs: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Distances of pairs of vectors (N,2), each taken for the one mask of a frame of two pixels."""
    return FeatureProducts.of(vectors[:, None, None], pairs).distances(torch.ones(len(vectors), 1, 1))


def test_consistency_is_equation_7_summed_over_pairs_and_averaged_over_clips() -> None:
    vectors = angles(0, 0.3, 0.7, 5.0, 0.2, 1.1)  # two clips of three frames
    valid = torch.ones(2, 3, dtype=torch.bool)
    expected = 0.0
    for turn in (0.3, 0.7, 0.2, 1.1):
        similarity = math.cos(turn)
        expected += math.exp(similarity - 1) * (1 - similarity) / 2
    distances = turned(vectors, neighbours(valid, None))
    found = consistency_loss(distances, clips=2)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    mean = consistency_loss(distances)
    assert float(mean) == pytest.approx(expected / 2, rel=1e-5)


@pytest.mark.parametrize("learns", [True, False])
def test_whether_gradients_pass_the_adaptive_weight(learns: bool) -> None:
    # d/dt of exp(-d) d with d = 1 - cos t is exp(-d) sin t (1 - d), and exp(-d) sin t with a constant weight.
    turn = torch.tensor(2.0, requires_grad=True)
    vectors = torch.stack((torch.tensor([1.0, 0.0]), torch.stack((turn.cos(), turn.sin()))))
    pairs = neighbours(torch.ones(1, 2, dtype=torch.bool), None)
    consistency_loss(turned(vectors, pairs), weight_learns=learns).backward()
    distance = 1 - math.cos(2.0)
    slope = math.exp(-distance) * math.sin(2.0) * (1 - distance if learns else 1)
    assert turn.grad is not None
    assert float(turn.grad) == pytest.approx(slope, rel=1e-4)


def test_consistency_leaves_out_the_last_depth_and_counts_existing_clips() -> None:
    model, clips = build(fusion_dropout=0.0), batch(clips=3, frames=3)
    valid = torch.tensor([[True] * 3, [True, True, False], [False] * 3])
    with torch.no_grad():
        found = losses(model, replace(clips, valid=valid))["consistency"]
        masks = [model.depths(replace(clips, valid=valid)).masks(depth) for depth in range(3)]
    expected = 0.0
    for depth in masks:
        for one, two in ((0, 1), (1, 2), (3, 4)):
            similarity = float(
                F.cosine_similarity(depth[one].flatten().double(), depth[two].flatten().double(), dim=0)
            )
            expected += math.exp(similarity - 1) * (1 - similarity)
    assert float(found) == pytest.approx(10 * expected / 2, rel=1e-4)


def test_all_ten_seconds_are_one_clip() -> None:
    paper, released = (Options.of({}, AVSS, variant) for variant in VARIANTS[::-1])
    valid = torch.ones(1, 10, dtype=torch.bool)
    assert len(neighbours(valid, paper.consistency_chunk)[0]) == 9
    assert len(neighbours(valid, released.consistency_chunk)[0]) == 8


@pytest.mark.parametrize(("task", "weight"), [(S4, 10), (MS3, 10), (AVSS, 5)], ids=["s4", "ms3", "avss"])
def test_consistency_has_the_weight_of_the_task(task: Task, weight: float) -> None:
    assert Options.of({}, task, "paper").consistency_weight == weight
    assert Options.of({}, task, "released").consistency_weight == 10
    assert Options.of({"consistency_weight": 20}, task, "paper").consistency_weight == 20


def test_the_share_of_sound_orders_as_the_larger_score_does() -> None:
    scores = torch.tensor([[2.0, 1.0, 0.0, 0.3], [6.0, 1.0, 0.0, 0.1]]).view(1, 2, 1, 4)
    share = sound_probability(scores, "share").flatten()
    torch.testing.assert_close(share, torch.tensor([0.75, 0.5, 0.0, 0.25]))
    draw = torch.rand(1, 2, 9, 9, generator=torch.Generator().manual_seed(0)) * 100
    for how in ("softmax", "share"):
        assert torch.equal(sound_probability(draw, how) > 0.5, draw.argmax(dim=1) == 1)


def test_a_frame_hears_itself_alone() -> None:
    model, clips = build(), batch(frames=3)
    other = clips.audio.clone()
    other[:, 1] += 3
    with torch.no_grad():
        change = (model(clips).mask_logits - model(replace(clips, audio=other)).mask_logits)[0].flatten(1)
    largest = change.abs().amax(dim=1)
    assert largest[1] > 1e-3
    assert largest[[0, 2]].max() == 0


#: Rows of the paper's ablation tables as options, see the model card.
ROWS: Mapping[str, dict[str, Any]] = {
    "Table 3 w/o Siam-Encoder": {"use_maskige": False},
    "Table 3 w/o Bilateral-Fusion": {"fusion": "none"},
    "Table 3 w/o Inter-Frame Loss": {"consistency_weight": 0},
    "Table 4 shared": {"shared_encoder": True},
    "Table 5 visual fusion only": {"fusion": "visual"},
    "Table 5 audio fusion only": {"fusion": "audio"},
    "Table 6 all": {"audio_queries": "all"},
    "Table 7 lambda 20": {"consistency_weight": 20},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_the_ablations_trains_all_its_parameters(row: str, variant: str) -> None:
    model = build(variant=variant, **ROWS[row]).train()
    terms = losses(model, batch())
    torch.stack(list(terms.values())).sum().backward()
    idle = [name for name, value in model.named_parameters() if value.grad is None]
    assert idle == []
    assert all(torch.isfinite(value.grad).all() for value in model.parameters() if value.grad is not None)
    assert bool(terms["consistency"]) == bool(ROWS[row].get("consistency_weight", 1))
    assert f"`{next(iter(ROWS[row]))}" in Combo().card()


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_fusion_the_sound_still_reaches_the_queries(variant: str) -> None:
    model, clips = build(variant=variant, fusion="none"), batch()
    assert model.fusion is None
    with torch.no_grad():
        change = model(clips).class_logits - model(replace(clips, audio=clips.audio + 5)).class_logits
    assert change.abs().max() > 1e-4


@pytest.mark.slow
def test_the_loss_falls_in_both_tasks() -> None:
    for task in (S4, AVSS):
        model, clips = build(task, fusion_dropout=0.0).train(), batch()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        history = []
        for _ in range(6):
            loss = torch.stack(list(losses(model, clips).values())).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(float(loss.detach()))
        assert history[-1] < 0.9 * history[0], task.name


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("frames", [1, 10])
def test_one_frame_and_ten_frames_have_predictions_and_losses(frames: int, variant: str) -> None:
    model, clips = build(variant=variant), batch(frames=frames)
    with torch.no_grad():
        prediction, terms = model.predict(clips), losses(model, clips)
    assert prediction.shape == (1, frames, 64, 64)
    assert all(term.isfinite() for term in terms.values())
    assert bool(terms["consistency"]) == (frames > 1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_112_pixels_are_refused_and_448_work(variant: str) -> None:
    model = build(variant=variant)
    with pytest.raises(UsageError, match=r"multiples of 32, got 112x112 pixels.*image_size"), torch.no_grad():
        model.predict(batch(frames=1, side=112))
    with torch.no_grad():
        assert model.predict(batch(frames=1, side=448)).shape == (1, 1, 448, 448)


@pytest.mark.parametrize("variant", VARIANTS)
def test_silent_frames_and_no_frames_have_losses(variant: str) -> None:
    model, clips = build(variant=variant), batch(clips=2)
    silent = replace(clips, masks=torch.zeros_like(clips.ground_truth()))
    terms = losses(model, silent)
    assert all(term.isfinite() and term > 0 for term in terms.values())
    nothing = replace(silent, valid=torch.zeros(2, 2, dtype=torch.bool))
    terms = losses(model, nothing)
    assert not any(terms.values())
    torch.stack(list(terms.values())).sum().backward()
    with torch.no_grad():
        assert not model.predict(nothing).any()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("queries", [6, 80])
def test_all_71_classes_at_once_also_with_fewer_queries(queries: int, variant: str) -> None:
    model = build(AVSS, variant, queries=queries)
    every = (torch.arange(64 * 64) % 71).view(1, 1, 64, 64).expand(1, 2, 64, 64)
    terms = losses(model, batch(masks=every))
    assert all(term.isfinite() and term > 0 for term in terms.values())


@pytest.mark.parametrize("variant", VARIANTS)
def test_padded_frames_leave_losses_as_they_are(variant: str) -> None:
    model, short = build(variant=variant), batch(frames=5)
    rubbish = torch.full((1, 5, 3, 64, 64), float("nan"))
    assert short.maskige is not None
    padded = Batch(
        torch.cat((short.images, rubbish), dim=1),
        torch.cat((short.audio, torch.full((1, 5, 128), float("nan"))), dim=1),
        valid=torch.arange(10)[None] < 5,
        maskige=torch.cat((short.maskige, rubbish), dim=1),
        masks=torch.cat((short.ground_truth(), torch.ones(1, 5, 64, 64, dtype=torch.int64)), dim=1),
    )
    with torch.no_grad():
        for name, term in losses(model, padded).items():
            torch.testing.assert_close(term, losses(model, short)[name], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model.predict(padded)[:, :5], model.predict(short), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("task", "variant", "options", "name"),
    [
        (S4, "paper", {"normed_residual": True}, "normed_residual"),
        (S4, "paper", {"fusion": "none", "fusion_heads": 8}, "fusion_heads"),
        (S4, "paper", {"fusion": "visual", "attention_limit": 1.0}, "attention_limit"),
        (S4, "released", {"fusion": "audio", "visual_softmax": "sounds"}, "visual_softmax"),
        (S4, "released", {"use_maskige": False, "channel_weight": "linear"}, "channel_weight"),
        (AVSS, "paper", {"object_score": "softmax"}, "object_score"),
        (S4, "paper", {"consistency_weight": 0, "consistency_chunk": 5}, "consistency_chunk"),
    ],
)
def test_options_without_effect_are_refused(
    task: Task, variant: str, options: dict[str, Any], name: str
) -> None:
    with pytest.raises(
        UsageError, match=f"The option {name} has no effect (with|because|on) .*; leave it out"
    ):
        build(task, variant, **options)


def test_the_variants_are_the_same_network_with_other_options() -> None:
    released = {name: Options.model_fields[name].default for name in PAPER}
    model = build(variant="paper", **{n: v for n, v in released.items() if n != "object_score"})
    model.load_state_dict(build(variant="released").state_dict())
    clips = batch(clips=2)
    with torch.no_grad():
        assert torch.equal(model(clips).mask_logits, build(variant="released")(clips).mask_logits)


@pytest.mark.parametrize("task", [S4, MS3, AVSS], ids=["s4", "ms3", "avss"])
def test_the_paper_recipe_is_valid(task: Task) -> None:
    for preset in ("full", "smoke"):
        recipe = resolve(Combo(), task, "r50", variant="paper", preset=preset)
        Options.of(recipe.options, task, "paper")
    full = resolve(Combo(), task, "r50", variant="paper")
    assert "paper" in full.source
    assert full.train_fit == "squeeze"
    assert full.iterations == (20_000 if task is MS3 else 90_000)
    assert (full.batch_size, full.optimizer.lr, full.optimizer.weight_decay) == (8, 1e-4, 0.05)
