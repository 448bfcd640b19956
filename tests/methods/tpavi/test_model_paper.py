"""TPAVI as in the paper: behaviour of a small network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from avsbench_methods.tpavi import TPAVI
from avsbench_methods.tpavi.interaction import Interaction
from avsbench_methods.tpavi.model import TPAVIModel
from torch import nn

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.tasks import AVSS, MS3, S4, TASKS, Task
from avsbench_harness.testing.seeded import seeded_input

VARIANTS = ("released", "paper")


def build(task: Task = S4, variant: str = "paper", **options: Any) -> TPAVIModel:
    """Return a small network whose interaction has a non-zero gain, as after training."""
    torch.manual_seed(0)
    model = TPAVI().build(task, "resnet10t", variant=variant, **{"dim": 16, **options})
    assert isinstance(model, TPAVIModel)
    for interaction in model.interactions:
        if isinstance(interaction, Interaction):
            nn.init.constant_(interaction.out_norm.weight, 1000.0)
    return model.eval()


def batch(clips: int = 1, frames: int = 10, side: int = 64, classes: int = 2, **fields: Any) -> Batch:
    masks = torch.arange(clips * frames * side * side).view(clips, frames, side, side) % classes
    images = seeded_input(1, "images", (clips, frames, 3, side, side))
    audio = seeded_input(1, "audio", (clips, frames, 128))
    return Batch(images, audio, **{"masks": masks, **fields})


@torch.no_grad()
@pytest.mark.parametrize(("variant", "attends"), [("released", False), ("paper", True)])
def test_the_paper_attends_across_all_ten_frames_of_avss(variant: str, attends: bool) -> None:
    model, clip = build(AVSS, variant), batch(classes=71)
    audio = clip.audio.clone()
    audio[:, 9] += 1
    change = (model(clip.with_audio(audio)).logits - model(clip).logits).abs().amax(dim=(2, 3, 4))[0]
    assert [bool(value > 1e-4) for value in change] == [attends] * 5 + [True] * 5


@torch.no_grad()
def test_a_clip_padded_to_ten_frames_equals_the_clip_of_five() -> None:
    valid = torch.arange(10)[None] < 5
    model, clip = build(AVSS), batch(valid=valid, classes=71)
    clip.images[~valid] = float("nan")
    alone = model(Batch(clip.images[:, :5], clip.audio[:, :5])).logits
    together = model(clip).logits
    torch.testing.assert_close(together[:, :5], alone, rtol=0, atol=1e-4)
    assert not together[:, 5:].any()


@torch.no_grad()
def test_padded_frames_change_nothing_in_training() -> None:
    valid = torch.arange(6)[None] < 3
    clip = batch(frames=6, valid=valid)
    padded, short = build().train(), build().train()
    together = padded(clip).logits[:, :3]
    alone = short(Batch(clip.images[:, :3], clip.audio[:, :3])).logits
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-3)
    for (name, one), other in zip(padded.named_buffers(), short.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=name)


@torch.no_grad()
def test_the_matching_loss_uses_features_of_both_signs() -> None:
    for variant, negative in (("released", False), ("paper", True)):
        features = build(MS3, variant)(batch(frames=2)).features
        assert [bool((feature < 0).any()) for feature in features] == [negative] * 4


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_parameter_has_a_gradient(task: Task) -> None:
    model = build(task).train()
    losses = model.losses(batch(frames=2, classes=task.channels + 1 if task is not AVSS else 71))
    assert set(losses) == ({"iou"} if task is S4 else {"iou", "avm"})
    sum(losses.values()).backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert missing == []


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("frames", "side", "fields"),
    [
        (1, 64, {}),
        (10, 64, {}),
        (2, 128, {}),
        (2, 64, {"valid": torch.zeros(1, 2, dtype=torch.bool), "annotated": torch.zeros(1, 2).bool()}),
        (2, 64, {"audio": torch.zeros(1, 2, 128)}),
        (2, 64, {"classes": 71}),
    ],
    ids=["one frame", "ten frames", "larger", "no frames", "silent", "all classes"],
)
def test_unusual_batches_work(variant: str, frames: int, side: int, fields: dict[str, Any]) -> None:
    given = dict(fields)
    clip = batch(frames=frames, side=side, classes=given.pop("classes", 2))
    clip = Batch(clip.images, given.pop("audio", clip.audio), masks=clip.masks, **given)
    model = build(AVSS, variant)
    with torch.no_grad():
        prediction = model.predict(clip)
    assert prediction.shape == (1, frames, 71, side, side)
    assert prediction.isfinite().all()
    assert all(value.isfinite() for value in model.losses(clip).values())


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("side", "works"), [(112, False), (448, True)])
def test_sides_of_112_are_refused_and_448_work(variant: str, side: int, works: bool) -> None:
    model, clip = build(variant=variant), batch(frames=1, side=side)
    if works:
        with torch.no_grad():
            assert model.predict(clip).shape == (1, 1, side, side)
    else:
        with pytest.raises(UsageError, match=r"multiples of 32, got 112x112"):
            model.predict(clip)


@torch.no_grad()
def test_fusion_of_the_ablation() -> None:
    clip = batch(frames=3)
    other = clip.audio.clone()
    other[:, 0] += 1

    def change(**options: Any) -> list[bool]:
        model = build(**options)
        moved = (model(clip.with_audio(other)).logits - model(clip).logits).abs().amax(dim=(2, 3, 4))[0]
        return [bool(value > 1e-5) for value in moved]

    assert change(fusion="none") == [False, False, False]
    assert change(fusion="add") == [True, False, False]
    assert change(fusion_stages=(4,)) == [True, True, True]
    partial = build(fusion_stages=(3, 4))
    assert [isinstance(block, nn.Identity) for block in partial.interactions] == [True, True, False, False]
    assert not partial(clip).sounds[0].any()
