"""QDFormer: every equation against small hand-made tensors, matching, options, and the shared suite."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from avsbench_methods.qdformer import QDFormer
from avsbench_methods.qdformer.decomposition import Recombination
from avsbench_methods.qdformer.encoders import Fusion, pixel_positions, time_positions
from avsbench_methods.qdformer.loss import matching_costs, set_losses
from avsbench_methods.qdformer.mask_decoder import FramePredictions, dynamic_convolution
from avsbench_methods.qdformer.model import QDFormerModel
from avsbench_methods.qdformer.options import Options
from avsbench_methods.qdformer.quantization import QuantizedTokens, Quantizer, quantization_losses
from avsbench_methods.qdformer.targets import Objects, clip_objects
from torch import Tensor
from torch.testing import assert_close

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.resolve import resolve
from avsbench_harness.tasks import AVSS, MS3, S4, Task

SMALL: dict[str, Any] = {
    "dim": 32, "heads": 4, "ffn_dim": 32, "encoder_layers": 1, "semantic_layers": 1, "decoder_layers": 1,
    "codebook_size": 16, "tokens": 3,
}  # fmt: skip
CODEBOOK_ONLY = ("codebook_size",)
#: The overrides of each row of Table 2; the last is the method.
TABLE_2: dict[str, dict[str, Any]] = {
    "baseline": {"decomposition": "none"},
    "non-Q SD": {"decomposition": "continuous", "recombination": False, "calibration": False},
    "Q SD": {"recombination": False, "calibration": False},
    "Q SD + AVSR": {"calibration": False},
    "Q SD + AVSR + LC": {},
}
QUANTIZATION = {"codebook", "commit_global", "commit_local"}
SEGMENTATION = {"mask_bce", "mask_dice", "class", "box_l1", "box_giou"}


def small(**changes: Any) -> dict[str, Any]:
    """The small options with changes, without those that then have no effect."""
    options = {**SMALL, **changes}
    if options.get("decomposition", "quantized") != "quantized":
        options.pop("codebook_size")
    if options.get("decomposition") == "none":
        options.pop("semantic_layers")
    return options


def build(task: Task = S4, seed: int = 0, **changes: Any) -> QDFormerModel:
    torch.manual_seed(seed)
    model = QDFormer().build(task, "resnet10t", variant="paper", **small(**changes))
    assert isinstance(model, QDFormerModel)
    return model.eval()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clips(task: Task = S4, clips: int = 2, frames: int = 3, side: int = 64, **fields: Any) -> Batch:
    masks = torch.zeros(clips, frames, side, side, dtype=torch.int64)
    masks[:, :, 8:30, 10:40] = task.channels - 1 or 1
    audio = draw(clips, frames, 128, seed=1).abs()
    return Batch(draw(clips, frames, 3, side, side), audio, **{"masks": masks, **fields})


# --- equation 3 ------------------------------------------------------------------------------------------


def attention_by_hand(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, heads: int
) -> Tensor:
    """One query row at a time, one head at a time."""
    weights, biases = module.in_proj.weight.chunk(3), module.in_proj.bias.chunk(3)
    q, k, v = (x @ w.T + b for x, w, b in zip((query, key, value), weights, biases, strict=True))
    width = q.shape[-1] // heads
    rows = []
    for row in q:
        parts = []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            scores = (k[:, part] @ row[part]) / math.sqrt(width)
            share = scores.exp() / scores.exp().sum()  # over everything that can be seen
            parts.append((share[:, None] * v[:, part]).sum(0))
        rows.append(torch.cat(parts))
    return torch.stack(rows) @ module.out_proj.weight.T + module.out_proj.bias


def test_equation_3_every_sound_looks_at_the_whole_clip() -> None:
    torch.manual_seed(0)
    fusion = Fusion(Options.of(SMALL, S4, "paper")).eval()
    audio, video = draw(2, 3, 32), draw(2, 3, 32, 2, 2, seed=1)
    valid = torch.tensor([[True, True, True], [True, False, False]])
    with torch.no_grad():
        got = fusion(audio, video, valid)
        for clip in range(2):
            times, pixels = time_positions(3, audio), pixel_positions(video[0])
            keys, values = [], []
            for frame in range(3):
                if valid[clip, frame]:
                    tokens = video[clip, frame].flatten(1).T
                    values.append(tokens)
                    keys.append(tokens + pixels + times[frame])
            block = fusion.cross_attn
            read = attention_by_hand(
                block.attention, audio[clip] + times, torch.cat(keys), torch.cat(values), 4
            )
            hidden = F.layer_norm(read + audio[clip], (32,))
            expanded = fusion.ffn.linear2(fusion.ffn.linear1(hidden).clamp(min=0))
            want = F.layer_norm(expanded + hidden, (32,))
            assert_close(got[clip], want, rtol=1e-4, atol=1e-5)


def test_time_positions_do_not_depend_on_the_number_of_frames() -> None:
    like = torch.zeros(1, 32)
    assert_close(time_positions(10, like)[:5], time_positions(5, like))
    assert len({tuple(row.tolist()) for row in time_positions(10, like)}) == 10


# --- equations 4 and 6 -----------------------------------------------------------------------------------


def audio_gradient(model: QDFormerModel, which: str, frame: int | None) -> Tensor:
    """(T,) size of the gradient that the tokens of one frame, or of the clip, leave on each frame's sound."""
    batch = clips(clips=1)
    audio = batch.audio.clone().requires_grad_()
    output = model(batch.with_audio(audio))
    tokens = getattr(output, which)
    tokens = tokens if frame is None else tokens[:, frame]
    tokens.mul(draw(*tokens.shape, seed=5)).sum().backward()
    return audio.grad.abs().sum(dim=(0, 2))


def test_equation_4_clip_tokens_hear_every_frame() -> None:
    assert (audio_gradient(build(), "clip_tokens", None) > 0).all()


@pytest.mark.parametrize("frame", range(3))
def test_equation_6_frame_tokens_hear_their_own_frame_only(frame: int) -> None:
    heard = audio_gradient(build(), "frame_tokens", frame) > 0
    assert heard.tolist() == [index == frame for index in range(3)]


def test_equation_6_takes_the_sound_before_fusion() -> None:
    """f_{a,t} is of F_a, not of F'_a: other images leave the frames' tokens alone, and change the clip's."""
    model, batch = build(), clips()
    with torch.no_grad():
        one, two = model(batch), model(replace(batch, images=batch.images.flip(0)))
    assert_close(one.frame_tokens, two.frame_tokens, rtol=0, atol=0)
    assert (one.clip_tokens - two.clip_tokens).abs().max() > 1e-4


def test_prototypes_are_shared_by_default() -> None:
    assert build().local_prototypes is None
    assert build(shared_prototypes=False).local_prototypes.shape == (3, 32)


# --- equations 2 and 9: the codebook ---------------------------------------------------------------------


def quantizer(codes: list[list[float]], **options: Any) -> Quantizer:
    made = Quantizer(Options.of({**SMALL, "codebook_size": len(codes), **options}, S4, "paper"))
    made.codebook = torch.nn.Parameter(torch.tensor(codes))
    return made


def test_vq_takes_the_nearest_code_in_the_2_norm() -> None:
    # The largest product with (1, 1) has (9, 9), the nearest in the maximum norm is (2.5, 2.5).
    codes = quantizer([[9.0, 9.0], [2.5, 2.5], [1.0, 2.9], [-1.0, -1.0]])
    tokens = torch.tensor([[[1.0, 1.0], [8.0, 5.0]], [[-9.0, 0.0], [1.6, 2.2]]])
    assert codes.nearest(tokens).tolist() == [[2, 0], [3, 2]]
    values, passed = codes(tokens)
    assert_close(values, codes.codebook[torch.tensor([[2, 0], [3, 2]])])
    assert_close(passed, values.detach())


def test_the_gradient_passes_straight_through_and_misses_the_codebook() -> None:
    codes = quantizer([[1.0, 0.0], [0.0, 1.0]])
    tokens = torch.tensor([[0.9, 0.2], [0.3, 0.4]], requires_grad=True)
    weight = torch.tensor([[1.0, -2.0], [3.0, 5.0]])
    _, passed = codes(tokens)
    (passed * weight).sum().backward()
    assert_close(tokens.grad, weight)
    assert codes.codebook.grad is None


def equation_9(lambda_com: float = 0.5) -> tuple[dict[str, Tensor], Quantizer, Tensor, Tensor]:
    """One clip with two tokens in two frames, codes (1,0) and (0,2)."""
    codes = quantizer([[1.0, 0.0], [0.0, 2.0]])
    clip = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]], requires_grad=True)
    frames = torch.tensor([[[1.0, 1.0], [0.0, 4.0]], [[1.0, 0.0], [3.0, 0.0]]], requires_grad=True)
    losses = quantization_losses(
        QuantizedTokens(clip, codes(clip)[0]), QuantizedTokens(frames, codes(frames)[0]), lambda_com
    )
    return losses, codes, clip, frames


def test_equation_9_values() -> None:
    losses = equation_9()[0]
    # Clip: |(1,0)-(2,0)|^2 + |(0,2)-(0,1)|^2 = 2. Frames: 1 + 4 in the first, 0 + 4 in the second.
    assert {name: term.item() for name, term in losses.items()} == {
        "codebook": 2.0,
        "commit_global": 1.0,
        "commit_local": 4.5,
    }


@pytest.mark.parametrize(
    ("term", "moved"), [("codebook", "codebook"), ("commit_global", "clip"), ("commit_local", "frames")]
)
def test_equation_9_each_term_moves_one_thing(term: str, moved: str) -> None:
    losses, codes, clip, frames = equation_9()
    losses[term].backward()
    gradients = {"codebook": codes.codebook.grad, "clip": clip.grad, "frames": frames.grad}
    touched = {name for name, gradient in gradients.items() if gradient is not None and gradient.any()}
    assert touched == {moved}
    by_hand = {
        "codebook": [[-2.0, 0.0], [0.0, 2.0]],  # 2 (e - g) at each code
        "clip": [[[1.0, 0.0], [0.0, -1.0]]],  # 2 lambda_com (g - e)
        "frames": [[[0.0, 1.0], [0.0, 2.0]], [[0.0, 0.0], [2.0, 0.0]]],
    }
    assert_close(gradients[moved], torch.tensor(by_hand[moved]))


def test_equation_9_in_the_network() -> None:
    """The terms that the network returns have the same stop-gradients, and their weights."""
    batch = clips()
    model = build(dropout=0.0, quant_weight=0.5, commit_weight=0.25)
    codebook, own = model.quantizer.codebook, lambda module: next(module.parameters())
    parameters = {
        "codebook": codebook,
        "global": own(model.global_decoder.layers[0].ffn),
        "local": own(model.local_decoder.layers[0].ffn),
    }
    moved = {
        "codebook": {"codebook"},
        "commit_global": {"global"},
        "commit_local": {"local"},
        "mask_bce": {"global", "local"},
        "mask_dice": {"global", "local"},
        "class": {"global", "local"},
        "box_l1": {"global", "local"},
        "box_giou": {"global", "local"},
    }
    assert set(model.losses(batch)) == set(moved)
    for term, want in moved.items():
        model.zero_grad()
        model.losses(batch)[term].backward()
        got = {name for name, p in parameters.items() if p.grad is not None and p.grad.any()}
        assert got == want, term
    with torch.no_grad():
        losses, output = model.losses(batch), model(batch)
    error = (output.clip_codes - output.clip_tokens).square().sum() / 2
    local = (output.frame_codes - output.frame_tokens).square().sum() / 2
    assert_close(losses["codebook"], 0.5 * error)
    assert_close(losses["commit_global"], 0.5 * 0.25 * error)
    assert_close(losses["commit_local"], 0.5 * 0.25 * local)


def test_the_codebook_is_the_only_parameter_of_that_name() -> None:
    model = build(codebook_size=16)
    named = {name: p.shape for name, p in model.named_parameters() if name.endswith("codebook")}
    assert named == {"quantizer.codebook": (16, 32)}
    assert dict(QDFormer().build(S4, "resnet10t", variant="paper").named_parameters())[
        "quantizer.codebook"
    ].shape == (128, 256)


def test_codebook_health() -> None:
    codes = quantizer([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], dead_after=2)
    one = torch.tensor([[[2.0, 0.0], [0.0, 3.0]]])
    codes.observe(one)
    assert codes.diagnostics() == pytest.approx({"codebook_perplexity": 2.0, "codebook_dead": 0.0})
    codes.observe(torch.tensor([[[2.0, 0.0], [2.0, 0.0]]]))
    assert codes.dead().tolist() == [False, False, True, True]
    shares = [0.99 * 0.5 + 0.01, 0.99 * 0.5]
    perplexity = math.exp(-sum(share * math.log(share) for share in shares))
    assert codes.diagnostics() == pytest.approx({"codebook_perplexity": perplexity, "codebook_dead": 2.0})


def test_dead_codes_are_left_alone_unless_asked() -> None:
    start = [[1.0, 0.0], [0.0, 1.0], [-9.0, 0.0]]
    tokens = torch.tensor([[[2.0, 0.0], [0.0, 3.0]]])
    kept, revived = quantizer(start, dead_after=1), quantizer(start, dead_after=1, revive_dead_codes=True)
    for codes in (kept, revived):
        codes.observe(tokens)
    assert_close(kept.codebook.detach(), torch.tensor(start))
    assert_close(revived.codebook[:2].detach(), torch.tensor(start[:2]))
    assert any(torch.equal(revived.codebook[2], token) for token in tokens[0])
    assert revived.idle.tolist() == [0, 0, 0]


def test_only_training_keeps_account() -> None:
    model, batch = build(), clips()
    with torch.no_grad():
        model.predict(batch)
    assert not model.quantizer.usage.any()
    model.train().losses(batch)
    assert model.diagnostics()["codebook_perplexity"] >= 1
    assert build(decomposition="none").diagnostics() == {}


# --- equation 5 ------------------------------------------------------------------------------------------


def test_equation_5() -> None:
    torch.manual_seed(0)
    module = Recombination(Options.of(SMALL, S4, "paper")).eval()
    with torch.no_grad():
        module.norm.weight.copy_(draw(32, seed=2))
        module.norm.bias.copy_(draw(32, seed=3))
        module.norm.running_mean.copy_(draw(32, seed=4))
        tokens, video = draw(2, 3, 32), draw(2, 32, 2, 3, seed=1)
        got = module(tokens, video)
        first, _, second = module.filters
        for frame in range(2):
            maps = []
            for token in tokens[frame]:
                w = second.weight @ (first.weight @ token + first.bias).clamp(min=0) + second.bias
                maps.append(torch.stack([w[c] * video[frame, c] for c in range(32)]))
            concatenated = torch.cat(maps)  # N x D_v channels, one token after another
            reduced = torch.einsum("oc,chw->ohw", module.reduce.weight[:, :, 0, 0], concatenated)
            summed = reduced + module.reduce.bias[:, None, None] + video[frame]
            scale = module.norm.weight / (module.norm.running_var + module.norm.eps).sqrt()
            want = (summed - module.norm.running_mean[:, None, None]) * scale[:, None, None]
            assert_close(got[frame], want + module.norm.bias[:, None, None], rtol=1e-4, atol=1e-5)


def test_equation_5_takes_the_tokens_of_the_frames_clip() -> None:
    """Two clips of unlike length: each frame is modulated by its own clip's tokens."""
    model, batch = build(), clips(valid=torch.tensor([[True, False, False], [True, True, True]]))
    with torch.no_grad():  # clips get codes of their own, so that a mix-up is seen
        tokens = model(batch).clip_tokens.flatten(0, 1)
        model.quantizer.codebook[: len(tokens)] = tokens
    seen: list[Tensor] = []
    model.recombination.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        output = model(batch)
    assert ((output.clip_codes[0] - output.clip_codes[1]).abs().amax(dim=1) > 1e-2).all()
    want = torch.stack([output.clip_codes[clip] for clip in (0, 1, 1, 1)])
    assert_close(seen[0], want)


def test_filters_from_tokens_before_quantisation() -> None:
    model = build(filter_tokens="continuous")
    seen: list[Tensor] = []
    model.recombination.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        output = model(clips(clips=1, frames=1))
    assert_close(seen[0], output.clip_tokens)
    assert (output.clip_tokens - output.clip_codes).abs().max() > 0.1


# --- equation 7 and the mask decoder ---------------------------------------------------------------------


def test_equation_7() -> None:
    features, filters = draw(2, 4, 3, 5), draw(2, 3, 5, seed=1)
    got = dynamic_convolution(features, filters)
    assert got.shape == (2, 3, 3, 5)
    for frame, query in itertools.product(range(2), range(3)):
        kernel, bias = filters[frame, query, :4].view(1, 4, 1, 1), filters[frame, query, 4:]
        assert_close(got[frame, query], F.conv2d(features[frame : frame + 1], kernel, bias)[0, 0])


def test_the_queries_are_the_quantised_tokens_of_their_frame() -> None:
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        def hook(_: Any, inputs: tuple[Tensor, ...]) -> None:
            seen[name] = inputs[0]

        return hook

    batch = clips()
    for name, changes in TABLE_2.items():
        model = build(**changes)
        model.mask_decoder.register_forward_pre_hook(note(name))
        with torch.no_grad():
            output = model(batch)
        want = {
            "non-Q SD": lambda out: out.clip_tokens.repeat_interleave(3, dim=0),
            "Q SD": lambda out: out.clip_codes.repeat_interleave(3, dim=0),
            "Q SD + AVSR": lambda out: out.clip_codes.repeat_interleave(3, dim=0),
            "Q SD + AVSR + LC": lambda out: out.frame_codes.flatten(0, 1),
        }.get(name)
        if want is not None:
            assert_close(seen[name], want(output))
    baseline = seen["baseline"]  # the fused sound of each frame, the same for all queries
    assert_close(baseline, baseline[:, :1].expand_as(baseline))
    assert (baseline[0] - baseline[1]).abs().max() > 1e-3


# --- the set of objects ----------------------------------------------------------------------------------


def test_objects_of_a_clip() -> None:
    masks = torch.zeros(2, 4, 8, dtype=torch.int64)
    masks[0, 1:3, 2:6] = 5
    masks[0, 3, 7] = 2
    masks[1, 0, 0] = 5
    objects = clip_objects(masks)
    assert objects.labels.tolist() == [1, 4]  # classes 2 and 5 without background
    assert objects.present.tolist() == [[True, False], [True, True]]
    assert objects.masks.shape == (2, 2, 4, 8)
    assert objects.masks[1, 0].sum() == 8
    want = [
        [[7.5 / 8, 3.5 / 4, 1 / 8, 1 / 4], [0, 0, 0, 0]],
        [[4 / 8, 2 / 4, 4 / 8, 2 / 4], [0.5 / 8, 0.5 / 4, 1 / 8, 1 / 4]],
    ]
    assert_close(objects.boxes, torch.tensor(want))
    assert len(clip_objects(torch.zeros(2, 4, 8, dtype=torch.int64)).labels) == 0


def one_pair() -> tuple[FramePredictions, Objects]:
    """One query, one class, one object, one frame of 1 x 2 pixels."""
    predicted = FramePredictions(
        class_logits=torch.zeros(1, 1, 1),
        boxes=torch.tensor([[[0.5, 0.5, 1.0, 1.0]]]),
        mask_logits=torch.tensor([[[[0.0, math.log(3.0)]]]]),
    )
    return predicted, clip_objects(torch.tensor([[[1, 0]]]))


def test_equation_10_values_of_one_pair() -> None:
    weights = {"bce_weight": 1, "dice_weight": 10, "class_weight": 100, "l1_weight": 2, "giou_weight": 3}
    options = Options.of(weights, S4, "paper")
    predicted, wanted = one_pair()
    losses = {name: term.item() for name, term in set_losses([predicted], [wanted], options).items()}
    # Mask probabilities 1/2 and 3/4 against 1 and 0; box (0,0,1,1) against (0,0,1/2,1); class 1/2 against 1.
    assert losses == pytest.approx(
        {
            "mask_bce": (math.log(2) + math.log(4)) / 2,
            "mask_dice": 10 * (1 - (2 * 0.5 + 1) / (1.25 + 1 + 1)),
            "class": 100 * 0.25 * 0.5**2 * math.log(2),
            "box_l1": 2 * (0.25 + 0.5),
            "box_giou": 3 * (1 - 0.5),
        },
        abs=1e-5,
    )


def test_equation_10_an_object_has_no_class_in_frames_without_it() -> None:
    predicted = FramePredictions(
        class_logits=torch.tensor([[[0.0]], [[math.log(3.0)]]]),
        boxes=torch.full((2, 1, 4), 0.5),
        mask_logits=torch.zeros(2, 1, 1, 2),
    )
    wanted = clip_objects(torch.tensor([[[1, 0]], [[0, 0]]]))
    loss = set_losses([predicted], [wanted], Options.of({"class_weight": 1}, S4, "paper"))["class"].item()
    # Probability 1/2 where the object is, 3/4 where it is not; one object in one frame to divide by.
    assert loss == pytest.approx(0.25 * 0.5**2 * math.log(2) + 0.75 * 0.75**2 * math.log(4), abs=1e-5)


def test_equation_10_the_cost_of_a_pair_is_its_loss_beyond_that_of_nothing() -> None:
    options = Options.of({}, S4, "paper")
    predicted, wanted = one_pair()
    cost = matching_costs(predicted, predicted.mask_logits, wanted, options)
    alone = options.class_weight * 0.75 * 0.5**2 * math.log(2)
    total = sum(term.item() for term in set_losses([predicted], [wanted], options).values())
    assert cost.shape == (1, 1)
    assert cost.item() == pytest.approx(total - alone, abs=1e-5)


def random_set(
    seed: int, frames: int = 3, queries: int = 4, classes: int = 6
) -> tuple[FramePredictions, Objects]:
    masks = torch.zeros(frames, 8, 8, dtype=torch.int64)
    masks[:, :4, :4], masks[1:, 5:, 2:7] = 2, 5
    masks[0, 6, 6] = 3
    predicted = FramePredictions(
        class_logits=draw(frames, queries, classes, seed=seed),
        boxes=draw(frames, queries, 4, seed=seed + 100).sigmoid(),
        mask_logits=draw(frames, queries, 8, 8, seed=seed + 200),
    )
    return predicted, clip_objects(masks)


def loss_by_hand(
    predicted: FramePredictions, wanted: Objects, order: tuple[int, ...], options: Options
) -> float:
    """Equation 10 for object ``j`` at query ``order[j]``, summed over pairs and averaged over frames."""
    total, frames = 0.0, len(predicted.boxes)
    probabilities = predicted.class_logits.sigmoid()
    target = torch.zeros_like(probabilities)
    for j, query in enumerate(order):
        where = [t for t in range(frames) if wanted.present[j, t]]
        for t in range(frames):
            truth, p = wanted.masks[j, t], predicted.mask_logits[t, query].sigmoid()
            bce = -(truth * p.log() + (1 - truth) * (1 - p).log()).mean()
            dice = 1 - (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1)
            total += float(options.bce_weight * bce + options.dice_weight * dice) / frames
        for t in where:
            target[t, query, wanted.labels[j]] = 1
            box, truth = predicted.boxes[t, query], wanted.boxes[j, t]
            l1 = float((box - truth).abs().sum())
            total += (options.l1_weight * l1 + options.giou_weight * (1 - giou_by_hand(box, truth))) / len(
                where
            )
    q = torch.where(target > 0, probabilities, 1 - probabilities)
    focal = torch.where(target > 0, 0.25, 0.75) * (1 - q) ** 2 * -q.log()
    return total + options.class_weight * float(focal.sum()) / frames


def giou_by_hand(one: Tensor, two: Tensor) -> float:
    (ax, ay, aw, ah), (bx, by, bw, bh) = one.tolist(), two.tolist()
    a, b = (
        (ax - aw / 2, ay - ah / 2, ax + aw / 2, ay + ah / 2),
        (bx - bw / 2, by - bh / 2, bx + bw / 2, by + bh / 2),
    )
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    union = aw * ah + bw * bh - common
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return common / union - (hull - union) / hull


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_assignment_is_the_best_of_all_permutations(seed: int) -> None:
    options = Options.of({}, S4, "paper")
    predicted, wanted = random_set(seed)
    cost = matching_costs(predicted, predicted.mask_logits, wanted, options)
    by_hand = {
        order: loss_by_hand(predicted, wanted, order, options)
        for order in itertools.permutations(range(4), 3)
    }
    orders = list(by_hand)
    for order in orders[1:]:  # what all have in common does not matter
        difference = sum(float(cost[q, j] - cost[orders[0][j], j]) for j, q in enumerate(order))
        assert difference == pytest.approx(by_hand[order] - by_hand[orders[0]], abs=1e-4), f"seed {seed}"
    from avsbench_methods.qdformer.loss import match

    queries, targets = match(predicted, predicted.mask_logits, wanted, options)
    found = {int(target): int(query) for query, target in zip(queries, targets, strict=True)}
    assert tuple(found[j] for j in range(3)) == min(by_hand, key=by_hand.__getitem__), f"seed {seed}"


def test_a_query_keeps_its_object_in_all_frames() -> None:
    """One assignment per clip: queries that swap objects between frames are punished, not followed."""
    on, off = 20.0, -20.0
    left, right = torch.full((4, 4), off), torch.full((4, 4), off)
    left[:, :2], right[:, 2:] = on, on
    truth = torch.zeros(2, 4, 4, dtype=torch.int64)
    truth[:, :, :2], truth[:, :, 2:] = 1, 2

    def losses(second: list[Tensor]) -> float:
        predicted = FramePredictions(
            class_logits=torch.zeros(2, 2, 2),
            boxes=torch.full((2, 2, 4), 0.5),
            mask_logits=torch.stack([torch.stack([left, right]), torch.stack(second)]),
        )
        return set_losses([predicted], [clip_objects(truth)], Options.of({}, S4, "paper"))["mask_dice"].item()

    assert losses([left, right]) == pytest.approx(0, abs=1e-4)
    assert losses([right, left]) > 1


def test_more_objects_than_queries() -> None:
    masks = torch.arange(16).view(1, 4, 4)
    predicted = FramePredictions(draw(1, 2, 70), draw(1, 2, 4).sigmoid(), draw(1, 2, 4, 4))
    losses = set_losses([predicted], [clip_objects(masks)], Options.of({}, S4, "paper"))
    assert all(term.isfinite() for term in losses.values())


# --- prediction ------------------------------------------------------------------------------------------


def with_predictions(model: QDFormerModel, classes: list, masks: Tensor) -> None:
    """Let the mask decoder answer with these class probabilities (Q,C) and mask logits (Q,h,w)."""
    logits = torch.logit(torch.tensor(classes))[None]

    def answer(queries: Tensor, video: Tensor, maps: Any) -> FramePredictions:
        frames = len(queries)
        boxes = torch.zeros(frames, len(classes), 4)
        return FramePredictions(logits.expand(frames, -1, -1), boxes, masks.expand(frames, *masks.shape))

    model.mask_decoder.forward = answer  # type: ignore[method-assign]


def test_predictions_of_s4() -> None:
    model = build(score_threshold=0.2)
    masks = torch.full((2, 16, 16), -30.0)
    masks[0, :8], masks[1, :, 8:] = 30.0, 30.0
    with_predictions(model, [[0.2], [0.6]], masks)
    with torch.no_grad():
        got = model.predict(clips(clips=1, frames=1))[0, 0]
    assert got[0, 0] == pytest.approx(0.5)  # just at the threshold
    odds = 0.6 / 0.4 / (0.2 / 0.8)
    assert got[-1, -1] == pytest.approx(odds / (1 + odds))
    assert got[0, -1] == pytest.approx(odds / (1 + odds))  # the surer of two
    assert got[-1, 0] == pytest.approx(0, abs=1e-6)


def test_predictions_of_avss() -> None:
    model = build(AVSS, tokens=2, score_threshold=0.3)
    masks = torch.full((2, 16, 16), -30.0)
    masks[0, :8], masks[1, :, 8:] = 30.0, 30.0
    classes = [[0.01] * 70, [0.01] * 70]
    classes[0][4], classes[1][69] = 0.4, 0.9
    with_predictions(model, classes, masks)
    with torch.no_grad():
        labels = model.predict(clips(AVSS, clips=1, frames=1))[0, 0].argmax(dim=0)
    assert (labels[0, 0], labels[0, -1], labels[-1, -1], labels[-1, 0]) == (5, 70, 70, 0)


# --- frames, switches, bad input -------------------------------------------------------------------------


@pytest.mark.parametrize("row", TABLE_2)
def test_padding_changes_no_loss_and_no_gradient(row: str) -> None:
    """Also in training, where batch norms see frames that exist and no others."""

    def learn(batch: Batch) -> dict[str, Tensor]:
        model = build(AVSS, dropout=0.0, **TABLE_2[row]).train()
        losses = model.losses(batch)
        sum(losses.values()).backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        return {**losses, **gradients, **dict(model.named_buffers())}

    short = clips(AVSS)
    nan = torch.full_like(short.images, float("nan"))
    padded = Batch(
        images=torch.cat([short.images, nan], dim=1),
        audio=torch.cat([short.audio, torch.full_like(short.audio, float("nan"))], dim=1),
        valid=(torch.arange(6) < 3).expand(2, 6),
        masks=torch.cat([short.masks, short.masks + 1], dim=1),
    )
    one, two = learn(short), learn(padded)
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert_close(two[name], value, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("row", TABLE_2)
@pytest.mark.parametrize("task", [MS3, AVSS])
def test_rows_of_table_2(row: str, task: Task) -> None:
    model = build(task, **TABLE_2[row]).train()
    losses = model.losses(clips(task))
    sum(losses.values()).backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert idle == []
    terms = {name for name in QUANTIZATION if model.options.quantized}
    terms -= set() if model.options.calibration else {"commit_local"}
    assert set(losses) == terms | SEGMENTATION


def test_separated_sources() -> None:
    """Row 2 of Table 2: the baseline hears each source by itself."""
    model, batch = build(decomposition="none"), clips()
    sources = draw(2, 3, 4, 128, seed=7).abs()
    with torch.no_grad():
        output = model(batch.with_audio(sources))
        alone = model(batch.with_audio(sources[:, :, 2]))
    assert output.class_logits.shape == (2, 3, 4 * 3, 1)
    assert output.clip_tokens.shape == (2, 4, 32)
    assert_close(output.clip_tokens[:, 2:3], alone.clip_tokens, rtol=1e-4, atol=1e-5)
    model.train().losses(batch.with_audio(sources))
    with pytest.raises(UsageError, match="decomposition=none"):
        build()(batch.with_audio(sources))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decomposition": "none", "recombination": True}, "recombination has no effect without"),
        ({"decomposition": "none", "semantic_layers": 3}, "semantic_layers"),
        ({"decomposition": "continuous", "codebook_size": 8}, "codebook_size"),
        ({"recombination": False, "filter_tokens": "continuous"}, "filter_tokens"),
        ({"calibration": False, "shared_prototypes": True}, "shared_prototypes"),
        ({"decomposition": "continuous", "recombination": False}, "reach nothing"),
        ({"dim": 96, "heads": 7}, "does not divide"),
        ({"dim": 40}, "multiple of 32"),
        ({"tokens": 0}, "tokens"),
        ({"codebook": 5}, "Did you mean 'codebook_size'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Options.of(options, S4, "paper")


def test_the_papers_values_are_the_defaults() -> None:
    options = Options.of({}, S4, "paper")
    assert (options.codebook_size, options.tokens) == (128, 5)
    assert (options.decomposition, options.recombination, options.calibration) == ("quantized", True, True)
    assert not options.revive_dead_codes
    for task, epochs, milestone in ((S4, 13, 11), (MS3, 13, 11), (AVSS, 16, 14)):
        recipe = resolve(QDFormer(), task, "r50")
        assert (recipe.epochs, recipe.batch_size, recipe.schedule.milestones) == (epochs, 4, [milestone])
        assert (recipe.schedule.name, recipe.schedule.gamma) == ("step", 0.1)
        optimizer = recipe.optimizer
        assert (optimizer.name, optimizer.lr, optimizer.weight_decay) == ("adamw", 1e-4, 5e-4)
        assert optimizer.backbone_lr_scale == 0.5
        assert recipe.protocols == (["confusion"] if task.semantic else ["davis"])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("row", TABLE_2)
def test_a_batch_without_frames(row: str, training: bool) -> None:
    model = build(MS3, **TABLE_2[row]).train(training)
    batch = clips(MS3, valid=torch.zeros(2, 3, dtype=torch.bool))
    assert not model.predict(batch).any()
    losses = model.losses(batch)
    total = sum(losses.values())
    total.backward()
    assert total == 0
    assert set(losses) == set(model.losses(clips(MS3)))


def test_all_71_classes_in_one_frame() -> None:
    model, batch = build(AVSS).train(), clips(AVSS, clips=1, frames=1)
    batch.masks.view(-1)[:71] = torch.arange(71)
    assert all(term.isfinite() for term in model.losses(batch).values())


def test_a_clip_without_frames_beside_another() -> None:
    model = build()
    valid = torch.tensor([[True] * 3, [False] * 3])
    with torch.no_grad():
        output, alone = model(clips(valid=valid)), model(clips().select(slice(0, 1)))
    assert not output.clip_tokens[1].any()
    assert not output.clip_codes[1].any()
    assert_close(output.mask_logits[:1], alone.mask_logits, rtol=1e-4, atol=1e-4)


def test_audio_tokens() -> None:
    model, batch = build(), clips()
    with torch.no_grad():
        assert_close(model.audio_tokens(batch), model(batch).clip_tokens)
        assert build(decomposition="none").audio_tokens(batch).shape == (2, 1, 32)
