"""COMBO's loss, compared with the published implementation (tests/fixtures/combo)."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from avsbench_methods.combo import Combo
from avsbench_methods.combo.loss import (
    FeatureProducts,
    Targets,
    consistency_loss,
    frame_targets,
    match,
    neighbours,
    pairwise_bce,
    pairwise_dice,
    set_losses,
)
from avsbench_methods.combo.model import ComboModel
from avsbench_methods.combo.options import Options

from avsbench_harness.data.batch import Batch
from avsbench_harness.files import read_json
from avsbench_harness.nn.mask_decoder import MaskPredictions
from avsbench_harness.nn.matching import hungarian
from avsbench_harness.tasks import get_task
from avsbench_harness.testing.seeded import seeded_input


def distances(masks: torch.Tensor, pairs: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return the distances of the frames of each pair from mask logits (N,Q,h,w)."""
    return FeatureProducts.of(masks, pairs).distances(as_embeddings(masks))


def as_embeddings(masks: torch.Tensor) -> torch.Tensor:
    """Return embeddings (N,Q,Q) whose products with the masks, as features, are the masks."""
    return torch.eye(masks.shape[1]).expand(len(masks), -1, -1)


LOSS_CASES = {
    "binary_ms3_seed1": 5,
    "binary_ms3_seed2_two_videos": 10,
    "binary_s4_first_frame_seed1": 10,
    "avss_seed1_v1s_train_plus_v2": 15,
}


def rectangle(mask: torch.Tensor, rows: tuple[int, int], columns: tuple[int, int], label: int) -> None:
    mask[rows[0] : rows[1], columns[0] : columns[1]] = label


def truth(task: str, frame: int) -> torch.Tensor:
    """Class indices (224,224) of a frame of the loss cases."""
    mask = torch.zeros(224, 224, dtype=torch.long)
    if task == "avss":
        rectangle(mask, (20, 120), (20 + 5 * frame, 100 + 5 * frame), 7)
        rectangle(mask, (130, 200), (50, 150 + 4 * frame), 33)
    elif frame != 3:
        rectangle(mask, (40 + 10 * frame, 140 + 10 * frame), (60, 160), 1)
    return mask


def annotations(case: str) -> tuple[torch.Tensor, list[int]]:
    """Return the annotated frames (F,) bool, and the target of each."""
    frames = LOSS_CASES[case]
    if "s4" in case:
        return torch.arange(frames) % 5 == 0, [0, 1]
    if "avss" in case:
        return torch.tensor([True] + [False] * 4 + [True] * 10), [0, *range(10)]
    return torch.ones(frames, dtype=torch.bool), [frame % 5 for frame in range(frames)]


def loss_case(case: str) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], list[Targets], torch.Tensor]:
    """Class and mask logits at three depths, the last one final; targets; annotated frames."""
    frames = LOSS_CASES[case]
    seed = 2 if "seed2" in case else 1
    classes = 71 if "avss" in case else 2
    depths = []
    for depth in range(3):
        logits = seeded_input(seed, f"loss_logits_{depth}", (frames, 100, classes + 1))
        base = seeded_input(seed, f"loss_masks_base_{depth}", (1, 100, 56, 56))
        noise = seeded_input(seed, f"loss_masks_noise_{depth}", (frames, 100, 56, 56))
        depths.append((logits, base + 0.5 * noise))
    annotated, frame_of = annotations(case)
    masks = torch.stack([truth(case.split("_")[0], frame) for frame in frame_of])
    return depths, frame_targets(masks, classes), annotated


def grid() -> torch.Tensor:
    """Centres of 56x56 pixels, (x, y), row by row."""
    centres = (torch.arange(56) + 0.5) / 56
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack((x, y), dim=-1).flatten(0, 1)


def expected_losses(golden: dict[str, float], depth: int) -> dict[str, float]:
    suffix = "" if depth == 2 else f"_{depth}"
    names = {"class": "loss_ce", "mask": "loss_mask", "dice": "loss_dice"}
    return {ours: golden[theirs + suffix] for ours, theirs in names.items()}


@pytest.mark.parametrize("case", LOSS_CASES)
def test_matching_and_losses_on_a_grid(case: str, folder: Path) -> None:
    golden = read_json(folder / "losses.json")[case]
    depths, targets, annotated = loss_case(case)
    for depth, matched in enumerate(golden["matching_grid"]):
        logits, masks = (values[annotated] for values in depths[depth])
        pairs = match(logits, masks, targets, Options(), grid())
        assert [[queries.tolist(), found.tolist()] for queries, found in pairs] == matched
        losses = set_losses(logits, as_embeddings(masks), masks, targets, Options(), grid())
        found_losses = {name: float(value) for name, value in losses.items()}
        assert found_losses == pytest.approx(expected_losses(golden["losses_grid"], depth), rel=1e-5)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", LOSS_CASES)
def test_losses_at_random_points_use_the_same_random_numbers(case: str, seed: int, folder: Path) -> None:
    golden = read_json(folder / "losses.json")[case]
    depths, targets, annotated = loss_case(case)
    torch.manual_seed(seed)
    for depth in (2, 0, 1):
        logits, masks = (values[annotated] for values in depths[depth])
        found = set_losses(logits, as_embeddings(masks), masks, targets, Options())
        losses = {name: float(value) for name, value in found.items()}
        expected = expected_losses(golden[f"losses_sampled_torchseed{seed}"], depth)
        assert losses == pytest.approx(expected, rel=2e-5)
    assert float(torch.rand(())) == golden[f"rng_after_torchseed{seed}"]


@pytest.mark.parametrize("case", LOSS_CASES)
def test_consistency_of_consecutive_frames(case: str, folder: Path) -> None:
    golden = read_json(folder / "losses.json")[case]["losses_grid"]
    depths, _, _ = loss_case(case)
    valid = torch.ones(LOSS_CASES[case] // 5, 5, dtype=torch.bool)
    if "avss" in case:  # one clip of five frames beside one of ten
        valid = torch.tensor([[True] * 5 + [False] * 5, [True] * 10])
    for depth in (0, 1):
        loss = float(consistency_loss(distances(depths[depth][1], neighbours(valid, 5))))
        assert loss == pytest.approx(golden[f"loss_cosine_{depth}"], rel=1e-5)


def test_the_total_of_a_training_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``losses`` weights, sums and draws as the published training step does."""
    case = "binary_s4_first_frame_seed1"
    golden = read_json(folder / "losses.json")[case]
    depths, _, _ = loss_case(case)
    with torch.device("meta"):
        model = Combo().build(get_task("s4"), "r50", variant="released", use_maskige=False)
    assert isinstance(model, ComboModel)
    masks = torch.stack([torch.stack([truth("binary", clip)] * 5) for clip in (0, 1)])
    batch = Batch(
        torch.zeros(2, 5, 3, 224, 224),
        torch.zeros(2, 5, 128),
        masks=masks,
        annotated=torch.arange(5).expand(2, 5) == 0,
    )

    # The masks of every depth are a third of one feature map's channels.
    features = torch.cat([masks for _, masks in depths], dim=1)
    embeddings = [torch.eye(300)[100 * depth : 100 * depth + 100].expand(10, -1, -1) for depth in range(3)]
    predictions = MaskPredictions([logits for logits, _ in depths], embeddings, features)
    monkeypatch.setattr(model, "depths", lambda _: predictions)
    torch.manual_seed(0)
    losses = model.losses(batch)
    assert set(losses) == {"class", "mask", "dice", "consistency"}
    assert float(sum(losses.values())) == pytest.approx(golden["total_sampled_torchseed0"], rel=1e-5)


@pytest.mark.parametrize("case", ["independent", "two_videos", "small"])
def test_consistency_from_published_cosines(case: str, folder: Path) -> None:
    golden = read_json(folder / "losses.json")["adaptive_interframe"][case]
    # Unit vectors in the plane, each turned from the last by the angle of the published cosine.
    vectors = []
    for video in golden["one_minus_cosine_pairs"]:
        angle = 0.0
        vectors.append([math.cos(angle), math.sin(angle)])
        for distance in video:
            angle += math.acos(1 - distance)
            vectors.append([math.cos(angle), math.sin(angle)])
    valid = torch.ones(len(vectors) // 5, 5, dtype=torch.bool)
    masks = torch.tensor(vectors)[:, None, None]
    loss = consistency_loss(distances(masks, neighbours(valid, 5)))
    assert float(loss) == pytest.approx(golden["loss"], rel=1e-5)


def test_consistency_at_its_extremes(folder: Path) -> None:
    golden = read_json(folder / "losses.json")["adaptive_interframe"]
    frame = seeded_input(1, "frame", (1, 4, 8, 8))
    signs = torch.tensor([1.0, -1, 1, -1, 1]).view(5, 1, 1, 1)
    pairs = neighbours(torch.ones(1, 5, dtype=torch.bool), 5)
    found = {
        "identical_frames": frame.expand(5, -1, -1, -1),
        "opposite_frames": frame * signs,
        "zero_frames": torch.zeros(5, 4, 8, 8),
    }
    for name, masks in found.items():
        assert float(consistency_loss(distances(masks, pairs))) == pytest.approx(
            golden[name], rel=1e-5, abs=1e-6
        )


def test_matching_of_a_small_matrix(folder: Path) -> None:
    golden = read_json(folder / "losses.json")["match_small"]
    ((queries, found),) = golden["indices"]
    pairs = hungarian(torch.tensor(golden["cost"]))
    assert [part.tolist() for part in pairs] == [queries, found]


def test_matching_costs_are_those_of_every_pair_alone() -> None:
    logits, masks = seeded_input(1, "logits", (6, 50)), (seeded_input(1, "masks", (3, 50)) > 0).float()
    for query in range(6):
        for target in range(3):
            entropy = F.binary_cross_entropy_with_logits(logits[query], masks[target])
            torch.testing.assert_close(pairwise_bce(logits, masks)[query, target], entropy)
            p, t = logits[query].sigmoid(), masks[target]
            dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
            torch.testing.assert_close(pairwise_dice(logits, masks)[query, target], dice)
