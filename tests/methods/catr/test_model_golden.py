"""CATR, compared with the published implementation (tests/fixtures/catr)."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from avsbench_methods.catr import CATR
from avsbench_methods.catr.loss import Targets, clip_losses, matching_cost, weigh
from avsbench_methods.catr.model import CATRModel, CATROutput
from avsbench_methods.catr.options import Options

from avsbench_harness.data.batch import Batch
from avsbench_harness.files import read_json
from avsbench_harness.tasks import get_task
from avsbench_harness.testing.seeded import seeded_input, seeded_state

#: Of masks and of reference logits; the published float32 numbers are 5e-5 and 3e-6 from float64.
MASKS, REFERENCE = 5e-4, 5e-5
#: Nearer probabilities may be ordered either way by rounding.
DECIDED = 1e-5
#: Published names of the terms, and which layer of the decoder they belong to.
NAMES = {
    "reference": "loss_is_referred",
    "dice": "loss_dice",
    "focal": "loss_sigmoid_focal",
    "bce": "bce_loss",
}
LAYERS = {"": "", "_aux0": "_0", "_aux1": "_1"}

FOLDER = Path(__file__).parents[2] / "fixtures" / "catr"
LOSSES = read_json(FOLDER / "losses.json")


def build(seed: int) -> CATRModel:
    """The network with the weights of a golden case."""
    model = CATR().build(get_task("s4"), "pvt", variant="released")
    assert isinstance(model, CATRModel)
    model.load_upstream(seeded_state(seed, read_json(FOLDER / "pvt.keys.json")))
    return model.eval()


@pytest.fixture(scope="module")
def first() -> CATRModel:
    return build(1)


@pytest.fixture(scope="module")
def second() -> CATRModel:
    return build(2)


@functools.cache
def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"pvt_{name}.npz") as file:
        return dict(file)


def clip(seed: int, images: str = "images", size: int = 224) -> Batch:
    return Batch(seeded_input(seed, images, (1, 5, 3, size, size)), seeded_input(seed, "audio", (1, 5, 128)))


def close(found: torch.Tensor, expected: np.ndarray, atol: float) -> None:
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=atol)


def same_choice(output: CATROutput, golden: dict[str, np.ndarray], prefix: str = "") -> None:
    """Compare the selected queries of a clip, its final masks and their areas."""
    query, _, mask = (part[:, :, 0] for part in output.best())
    decided = torch.from_numpy(golden[f"{prefix}score_gap"] > DECIDED)
    published = torch.from_numpy(golden[f"{prefix}selected_query"])
    assert decided.sum() >= 4
    assert torch.equal(query[0][decided], published[decided])
    logits = F.interpolate(mask, size=(224, 224), mode="bilinear", align_corners=False)[0][decided]
    expected = golden[f"{prefix}final_logit_s8"][decided.numpy()]
    close(logits[:, ::8, ::8], expected, MASKS)
    areas = torch.from_numpy(golden[f"{prefix}final_area"])[decided]
    assert ((logits.sigmoid() > 0.5).flatten(1).sum(dim=1) - areas).abs().max() <= 5


@torch.inference_mode()
def test_everything_from_the_picture_to_the_masks(first: CATRModel) -> None:
    golden = arrays("seed1")
    seen: dict[str, Any] = {}
    parts = ("backbone", "spatial_encoder", "temporal_encoder", "mask_feature")
    hooks = [
        getattr(first, part).register_forward_hook(lambda _, __, value, part=part: seen.update({part: value}))
        for part in parts
    ]
    output = first(clip(1))
    for hook in hooks:
        hook.remove()
    # In the order of the computation, so that the first failure names the faulty part.
    for number, level in enumerate(seen["backbone"], start=1):
        close(level[:, ::32, ::7, ::7], golden[f"backbone{number}_sub"], REFERENCE)
    memory = seen["spatial_encoder"].transpose(0, 1)
    assert len(memory) == 28 * 28 + 5
    close(memory[::79, :, ::32], golden["spatial_memory_sub"], REFERENCE)
    close(memory[-5:, :, ::16], golden["spatial_memory_audio_tokens"], REFERENCE)
    close(seen["temporal_encoder"][:, ::32, ::7, ::7], golden["temporal_out_sub"], 1e-4)
    close(seen["mask_feature"][:, ::16], golden["fpn_sub"], 1e-4)
    for part, name in (
        ("spatial_encoder", "spatial_memory"),
        ("temporal_encoder", "temporal_out"),
        ("mask_feature", "fpn"),
    ):
        values = seen[part].double()
        found = [values.mean(), values.std(correction=0), values.abs().max()]
        np.testing.assert_allclose(found, golden[f"{name}_stats"], rtol=0, atol=1e-4)

    close(output.mask_logits[0], golden["pred_masks"], MASKS)
    close(output.reference_logits[0], golden["pred_is_referred"], REFERENCE)
    for number, layer in enumerate(output.earlier):
        close(layer.mask_logits[0, :, ::5], golden[f"aux{number}_pred_masks_q5"], MASKS)
        close(layer.reference_logits[0], golden[f"aux{number}_pred_is_referred"], REFERENCE)
    same_choice(output, golden)


@pytest.mark.slow
@torch.inference_mode()
def test_other_weights(second: CATRModel) -> None:
    golden = arrays("seed2")
    output = second(clip(2))
    close(output.mask_logits[0], golden["pred_masks"], MASKS)
    close(output.reference_logits[0], golden["pred_is_referred"], REFERENCE)
    for number, layer in enumerate(output.earlier):
        close(layer.mask_logits[0, :, ::5], golden[f"aux{number}_pred_masks_q5"], MASKS)
        close(layer.reference_logits[0], golden[f"aux{number}_pred_is_referred"], REFERENCE)
    same_choice(output, golden)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@torch.inference_mode()
def test_queries_that_lie_apart(seed: int, request: pytest.FixtureRequest) -> None:
    model: CATRModel = request.getfixturevalue("first" if seed == 1 else "second")
    golden = arrays(f"seed{seed}")
    model.decoder.queries.mul_(16)
    try:
        output = model(clip(seed))
        prediction = model.predict(clip(seed))
    finally:
        model.decoder.queries.div_(16)  # exact: a power of two
    close(output.mask_logits[0, :, ::5], golden["q16_pred_masks"], MASKS)
    close(output.reference_logits[0], golden["q16_pred_is_referred"], REFERENCE)
    assert golden["q16_score_gap"].min() > DECIDED
    same_choice(output, golden, "q16_")
    # The prediction is the mask that the published test script scores.
    published = torch.from_numpy(golden["q16_final_logit_s8"]).sigmoid()
    torch.testing.assert_close(prediction[0, :, ::8, ::8], published, rtol=0, atol=MASKS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@torch.inference_mode()
def test_batch_of_two_clips(seed: int, request: pytest.FixtureRequest) -> None:
    model: CATRModel = request.getfixturevalue("first" if seed == 1 else "second")
    golden = arrays(f"seed{seed}")
    images = seeded_input(seed, "images_b2", (5, 2, 3, 224, 224)).transpose(
        0, 1
    )  # frames first, as published
    output = model(Batch(images, seeded_input(seed, "audio_b2", (2, 5, 128))))
    close(output.mask_logits.transpose(0, 1)[:, :, ::10], golden["b2_pred_masks_q10"], MASKS)
    close(output.reference_logits.transpose(0, 1), golden["b2_pred_is_referred"], REFERENCE)


@pytest.mark.slow
@torch.inference_mode()
def test_images_of_448_pixels(first: CATRModel) -> None:
    golden = arrays("448_seed1")
    output = first(clip(1, "images448", 448))
    close(output.mask_logits[0, :, ::10], golden["pred_masks_q10"], MASKS)
    close(output.reference_logits[0], golden["pred_is_referred"], REFERENCE)
    scores = torch.from_numpy(golden["pred_is_referred"]).softmax(dim=-1)[..., 0].topk(2, dim=-1).values
    decided = scores[:, 0] - scores[:, 1] > DECIDED
    assert decided.any()
    query, _, mask = (part[:, :, 0] for part in output.best())
    assert torch.equal(query[0][decided], torch.from_numpy(golden["selected_query"])[decided])
    final = F.interpolate(mask, size=(224, 224), mode="bilinear", align_corners=False)[0].sigmoid()
    close(final[decided][:, ::4, ::4], golden["final_prob_s4"][decided.numpy()], MASKS)


def loss_case(case: dict[str, Any], tag: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Reference (B,t,Q,2), masks (B,t,Q,14,14) and truth (B,t,224,224) of the annotated frames."""
    seed, frames, clips, supervised = (case[key] for key in ("seed", "T", "B", "frames_supervised"))
    masks = 4 * seeded_input(seed, f"pred_masks{tag}", (frames, clips, 50, 14, 14))
    reference = seeded_input(seed, f"pred_is_referred{tag}", (frames, clips, 50, 2))
    truth = seeded_input(seed, "target_masks", (frames, clips, 14, 14)) > 0.5
    for frame, silent in case["empty_targets"]:
        truth[frame, silent] = False
    truth = truth.repeat_interleave(16, dim=2).repeat_interleave(16, dim=3)
    reference, masks, truth = (part[:supervised].transpose(0, 1) for part in (reference, masks, truth))
    return reference, masks, truth.float()


@pytest.mark.parametrize("case", LOSSES["cases"], ids=lambda case: case["name"])
def test_losses_matching_and_gradients(case: dict[str, Any]) -> None:
    options = Options()
    found: dict[str, float] = {}
    leaves = {}
    total = torch.zeros(())
    for tag, suffix in LAYERS.items():
        if f"loss_dice{suffix}" not in case["losses"]:
            continue
        reference, masks, truth = loss_case(case, tag)
        leaves[tag] = reference.requires_grad_(), masks.requires_grad_()
        matched = case["matched_query_target_per_clip"][tag.removeprefix("_") or "last"]
        for index in range(case["B"]):
            parts = reference[index], masks[index], Targets.of(truth[index], 2, options)
            cost = matching_cost(*parts, options)[:, 0]
            assert [int(cost.argmin()), 0] == matched[index]
            if not tag:
                expected = case["cost_own_target_last_layer"][index]
                np.testing.assert_allclose(cost, expected, rtol=0, atol=5e-6)
            terms = clip_losses(*parts, options)
            for name, value in terms.items():
                key = NAMES[name] + suffix
                found[key] = found.get(key, 0.0) + value.item() / case["B"]
            total = total + sum(weigh(terms, options).values()) / case["B"]
    assert found == pytest.approx(case["losses"], rel=1e-5)
    assert total.item() == pytest.approx(case["total"], rel=1e-6)
    total.backward()
    for leaf, name in zip(leaves[""], ("pred_is_referred", "pred_masks"), strict=True):
        assert leaf.grad is not None
        assert leaf.grad.abs().sum().item() == pytest.approx(case["grad_abs_sum"][name], rel=1e-5)


def test_weights_of_the_published_loss() -> None:
    config, options = LOSSES["config"], Options()
    assert config["weights"] == {
        NAMES[name] + suffix: getattr(options, f"{name}_weight")
        for name in NAMES
        for suffix in LAYERS.values()
    }
    assert (options.match_reference, options.match_dice, options.unmatched_weight) == (
        config["cost_is_referred"],
        config["cost_dice_effective"],
        config["eos_coef"],
    )
