"""COMBO as in the paper: behaviour of a small network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from avsbench_methods.combo import Combo
from avsbench_methods.combo.model import ComboModel, sound_probability

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.tasks import AVSS, S4

from .helpers_paper import VARIANTS, batch, build


def losses(model: ComboModel, clips: Batch) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return model.losses(clips)


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


def test_consistency_skips_the_last_depth_and_counts_clips_with_valid_frames() -> None:
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


def test_the_share_of_sound_is_above_one_half_where_its_score_is_higher() -> None:
    scores = torch.tensor([[2.0, 1.0, 0.0, 0.3], [6.0, 1.0, 0.0, 0.1]]).view(1, 2, 1, 4)
    share = sound_probability(scores, "share").flatten()
    torch.testing.assert_close(share, torch.tensor([0.75, 0.5, 0.0, 0.25]))
    draw = torch.rand(1, 2, 9, 9, generator=torch.Generator().manual_seed(0)) * 100
    for how in ("softmax", "share"):
        assert torch.equal(sound_probability(draw, how) > 0.5, draw.argmax(dim=1) == 1)


def test_a_frame_depends_on_its_own_audio_only() -> None:
    model, clips = build(), batch(frames=3)
    other = clips.audio.clone()
    other[:, 1] += 3
    with torch.no_grad():
        change = (model(clips).mask_logits - model(replace(clips, audio=other)).mask_logits)[0].flatten(1)
    largest = change.abs().amax(dim=1)
    assert largest[1] > 1e-3
    assert largest[[0, 2]].max() == 0


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
def test_without_fusion_the_queries_still_use_the_audio(variant: str) -> None:
    model, clips = build(variant=variant, fusion="none"), batch()
    assert (model.fusion is None) == (variant == "paper")
    with torch.no_grad():
        change = model(clips).class_logits - model(replace(clips, audio=clips.audio + 5)).class_logits
    assert change.abs().max() > 1e-4


@pytest.mark.slow
def test_the_loss_falls_in_both_tasks() -> None:
    for task in (S4, AVSS):
        model, clips = build(task, fusion_dropout=0.0).train(), batch()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        history = []
        for _ in range(10):
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
def test_padded_frames_do_not_change_losses(variant: str) -> None:
    model, short = build(variant=variant), batch(frames=5)
    padding = torch.full((1, 5, 3, 64, 64), float("nan"))
    assert short.maskige is not None
    padded = Batch(
        torch.cat((short.images, padding), dim=1),
        torch.cat((short.audio, torch.full((1, 5, 128), float("nan"))), dim=1),
        valid=torch.arange(10)[None] < 5,
        maskige=torch.cat((short.maskige, padding), dim=1),
        masks=torch.cat((short.ground_truth(), torch.ones(1, 5, 64, 64, dtype=torch.int64)), dim=1),
    )
    with torch.no_grad():
        for name, term in losses(model, padded).items():
            torch.testing.assert_close(term, losses(model, short)[name], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model.predict(padded)[:, :5], model.predict(short), rtol=0, atol=1e-5)
