"""AVSegFormer as in the paper: behaviour of a small network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from avsbench_methods.avsegformer import AVSegFormer
from torch import Tensor

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.tasks import AVSS, S4, Task

from .helpers_paper import SMALL, build

#: Rows of the paper's tables 2a to 2d.
ROWS: dict[str, dict[str, Any]] = {
    "2a, 1 query": {"queries": 1},
    "2a, 100 queries": {"queries": 100},
    "2a, 200 queries": {"queries": 200},
    "default": {},
    "2b, no learnable queries": {"learnable_queries": False},
    "2c, no mixer": {"mixer": "none"},
    "2c, CRA": {"mixer": "cross_attention"},
    "2d, no reformer": {"mask_reformer": "none"},
    "2d, AR": {"mask_reformer": "attention_only"},
}


def clips(task: Task = S4, clips: int = 1, frames: int = 2, side: int = 64, seed: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    classes = task.channels if task.semantic else 2
    return Batch(
        images=torch.randn(clips, frames, 3, side, side, generator=draw),
        audio=torch.rand(clips, frames, 128, generator=draw),
        masks=torch.randint(classes, (clips, frames, side, side), generator=draw),
    )


def test_intermediate_masks_come_from_every_layers_attention_and_queries() -> None:
    model, batch = build(), clips(frames=1)
    seen: list[tuple[Tensor, Tensor]] = []
    assert model.mask_reformer is not None
    hook = model.mask_reformer.register_forward_pre_hook(lambda _, given: seen.append(given[:2]))
    outputs: list[Tensor] = []
    norms = [
        layer.norm3.register_forward_hook(lambda *a: outputs.append(a[2])) for layer in model.decoder.layers
    ]
    with torch.no_grad():
        model.losses(batch)
    for handle in (hook, *norms):
        handle.remove()
    assert len(seen) == SMALL["decoder_layers"]
    for (attention, queries), output in zip(seen, outputs, strict=True):
        assert attention.shape == (1, SMALL["queries"], 8 * 8 + 4 * 4 + 2 * 2)
        torch.testing.assert_close(attention.sum(2), torch.ones(1, SMALL["queries"]))
        assert torch.equal(queries, output)
    assert not torch.allclose(seen[0][0], seen[1][0])


def test_total_loss_is_equation_4() -> None:
    batch = clips(frames=1)
    made: list[Tensor] = []
    for weight in (0.1, 0.4):
        model = build(inter_weight=weight)
        assert model.mask_reformer is not None
        made.clear()
        model.mask_reformer.register_forward_hook(lambda *a: made.append(a[2]))
        with torch.no_grad():
            losses = model.losses(batch)
            logits = model(batch).logits[0]
        assert set(losses) == {"iou", "inter"}
        assert len(made) == 2, "no intermediate masks are made where no loss asks for them"
        truth = batch.ground_truth()[0].double()

        def dice(logits: Tensor, truth: Tensor = truth) -> Tensor:
            p = logits[:, 0].double().sigmoid()
            extent = (p**2).sum((1, 2)) + (truth**2).sum((1, 2)) + 2e-3
            return (1 - 2 * (p * truth).sum((1, 2)) / extent).mean()

        torch.testing.assert_close(losses["iou"].double(), dice(logits), rtol=1e-5, atol=0)
        expected = weight * (dice(made[0]) + dice(made[1]))
        torch.testing.assert_close(losses["inter"].double(), expected, rtol=1e-5, atol=0)


def test_audio_queries_repeat_the_audio_token() -> None:
    model, sound = build(), torch.randn(2, 32)
    assert model.decoder_queries is not None
    queries = model._queries(sound)
    torch.testing.assert_close(queries - model.decoder_queries, sound[:, None].expand(-1, 6, -1))
    torch.testing.assert_close(
        build(learnable_queries=False)._queries(sound), sound[:, None].expand(-1, 6, -1)
    )


@pytest.mark.parametrize("row", ROWS)
def test_rows_of_the_ablation_tables(row: str) -> None:
    model = build(**{"decoder_layers": 1, **ROWS[row]}).train()
    losses = model.losses(clips(frames=1))
    assert ("inter" in losses) == (row != "2d, no reformer")
    sum(losses.values()).backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert idle == []


@pytest.mark.parametrize("variant", AVSegFormer.variants)
@pytest.mark.parametrize("task", [S4, AVSS])
def test_only_annotated_frames_are_computed_and_nothing_changes(variant: str, task: Task) -> None:
    model, batch = build(task, variant), clips(task, clips=2, frames=3)
    annotated = torch.zeros(2, 3, dtype=torch.bool)
    annotated[:, 0] = True
    seen: list[int] = []
    model.encoder.register_forward_hook(lambda *a: seen.append(len(a[2])))
    few = model.losses(Batch(batch.images, batch.audio, masks=batch.masks, annotated=annotated))
    first = Batch(batch.images[:, :1], batch.audio[:, :1], masks=batch.ground_truth()[:, :1])
    torch.testing.assert_close(few, model.losses(first))
    assert sum(seen) == 4


def test_batch_statistics_in_training_are_over_every_frame() -> None:
    batch, annotated = clips(frames=3), torch.tensor([[True, False, False]])
    means = []
    for frames in (annotated, None):
        model = build(dropout=0.0).train()
        model.losses(Batch(batch.images, batch.audio, masks=batch.masks, annotated=frames))
        means.append(torch.cat([b for n, b in model.backbone.named_buffers() if n.endswith("running_mean")]))
    torch.testing.assert_close(means[0], means[1])


@pytest.mark.parametrize("variant", AVSegFormer.variants)
@pytest.mark.parametrize("task", [S4, AVSS])
def test_an_optimiser_step_on_a_batch_without_annotated_frames_works(variant: str, task: Task) -> None:
    model, batch = build(task, variant).train(), clips(task)
    missing = torch.zeros(1, 2, dtype=torch.bool)
    for marks in ({"valid": missing}, {"annotated": missing}):
        losses = model.losses(Batch(batch.images, batch.audio, masks=batch.masks, **marks))
        assert all(float(term.detach()) == 0 for term in losses.values())
        sum(losses.values()).backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("variant", AVSegFormer.variants)
@pytest.mark.parametrize(("frames", "side"), [(1, 64), (10, 32), (1, 448), (1, 96)])
def test_batches_of_any_length_and_size(variant: str, frames: int, side: int) -> None:
    model = build(variant=variant, dim=64)
    with torch.no_grad():
        assert model.predict(clips(frames=frames, side=side)).shape == (1, frames, side, side)
    with pytest.raises(UsageError, match=r"multiples of 32, got 112x112 pixels.*image_size") as caught:
        model.losses(clips(frames=1, side=112))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("variant", AVSegFormer.variants)
def test_silent_frames_and_all_classes_at_once(variant: str) -> None:
    batch = clips(AVSS, frames=1)
    masks = (torch.arange(64 * 64) % 71).view(1, 1, 64, 64)
    silent = torch.zeros_like(masks)
    for truth, sound in ((masks, batch.audio), (silent, torch.zeros_like(batch.audio))):
        model = build(AVSS, variant).train()
        losses = model.losses(Batch(batch.images, sound, masks=truth))
        sum(losses.values()).backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
        assert all(float(term.detach()) > 0 for term in losses.values())
    losses = build(S4, variant).losses(Batch(batch.images, batch.audio * 0, masks=silent))
    assert float(losses["iou"].detach()) == pytest.approx(1)


@pytest.mark.parametrize("row", ["default", "2c, CRA", "2d, AR"])
def test_a_few_steps_lower_the_loss(row: str) -> None:
    model, batch = build(dropout=0.0, **ROWS[row]).train(), clips(frames=1)
    square = torch.zeros_like(batch.ground_truth())
    square[..., 16:48, 16:48] = 1
    batch = Batch(batch.images, batch.audio, masks=square)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    totals = []
    for _ in range(8):
        total = torch.stack(list(model.losses(batch).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.9 * totals[0], totals
