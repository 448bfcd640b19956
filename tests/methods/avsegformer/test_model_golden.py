"""AVSegFormer, compared with the published implementation (tests/fixtures/avsegformer)."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from avsbench_methods.avsegformer import AVSegFormer
from avsbench_methods.avsegformer.loss import mix_loss, segmentation_loss
from avsbench_methods.avsegformer.model import AVSegFormerModel
from avsbench_methods.avsegformer.upstream import rename

from avsbench_harness.data.batch import Batch
from avsbench_harness.files import read_json
from avsbench_harness.tasks import AVSS, S4, get_task
from avsbench_harness.testing.seeded import seeded_input, seeded_state

#: The published float32 logits are themselves about 1e-5 from float64.
ATOL = 1e-4

CASES = [(backbone, task, seed) for backbone in ("r50", "pvt") for task in ("s4", "avss") for seed in (1, 2)]


def build(folder: Path, backbone: str, task: str, seed: int) -> AVSegFormerModel:
    """The network with the weights of a golden case."""
    shapes = read_json(folder / f"{backbone}_s4.keys.json")
    channels = get_task(task).channels
    for name in ("head.fc.4.weight", "head.attn_fc.4.weight"):
        shapes[name][0] = channels
    model = AVSegFormer().build(get_task(task), backbone, variant="released")
    assert isinstance(model, AVSegFormerModel)
    model.load_upstream(seeded_state(seed, shapes))
    return model.eval()


def inputs(task: str, seed: int, audio: str = "audio", frames: int | None = None, **fields: Any) -> Batch:
    """Return the clip of a golden case, or its first frames."""
    length = get_task(task).frames
    images = seeded_input(seed, "images", (1, length, 3, 224, 224))
    sound = seeded_input(seed, audio, (1, length, 128))
    return Batch(images[:, :frames], sound[:, :frames], **fields)


def close(found: torch.Tensor, expected: np.ndarray, atol: float = ATOL) -> None:
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=atol)


@functools.cache
def arrays(folder: Path, backbone: str, task: str, seed: int) -> dict[str, np.ndarray]:
    with np.load(folder / f"{backbone}_{task}_seed{seed}.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def r50_s4(avsegformer_data: Path) -> AVSegFormerModel:
    return build(avsegformer_data, "r50", "s4", 1)


@torch.inference_mode()
def test_s4_logits_and_what_leads_to_them(r50_s4: AVSegFormerModel, avsegformer_data: Path) -> None:
    golden = arrays(avsegformer_data, "r50", "s4", 1)
    seen: dict[str, list[Any]] = {"backbone": [], "encoder": [], "query_generator": [], "decoder": []}
    hooks = [
        getattr(r50_s4, part).register_forward_hook(lambda _, __, value, made=made: made.append(value))
        for part, made in seen.items()
    ]
    output = r50_s4(inputs("s4", 1))
    for hook in hooks:
        hook.remove()
    encoder, generator, decoder = (
        torch.cat(seen[part]) for part in ("encoder", "query_generator", "decoder")
    )
    # From the picture to the mask, so that the first failure names the faulty part.
    for stage, expected in zip(*seen["backbone"], golden["feat_samples"], strict=True):
        step = stage.shape[2] // 4
        close(stage[:2, :16, ::step, ::step][..., :4, :4], expected)
    close(encoder[:, ::64, ::16], golden["memory_samples"])
    close(generator[:, ::60, ::16], golden["query_generator_samples"])
    close(decoder[:, ::60, ::32], golden["decoder_samples"][-1])
    close(output.mask_feature[0, :, ::32, ::8, ::8], golden["mask_feature_samples"])
    close(output.logits[0, ..., ::4, ::4], golden["logits_s4"])


@torch.inference_mode()
def test_s4_logits_with_other_sound(r50_s4: AVSegFormerModel, avsegformer_data: Path) -> None:
    golden = arrays(avsegformer_data, "r50", "s4", 1)["audio_alt_logits_s4"]
    close(r50_s4(inputs("s4", 1, "audio_alt", frames=2)).logits[0, ..., ::4, ::4], golden[:2])


@torch.inference_mode()
@pytest.mark.slow
def test_avss_logits_of_a_clip_with_five_frames(avsegformer_data: Path) -> None:
    model = build(avsegformer_data, "r50", "avss", 1)
    golden = arrays(avsegformer_data, "r50", "avss", 1)
    output = model(inputs("avss", 1, valid=torch.arange(10)[None] < 5))
    close(output.logits[0, :5, :, ::32, ::32], golden["valid5_logits_s32"])
    assert not output.logits[0, 5:].any()
    assert not output.mask_feature[0, 5:].any()
    # Frames are independent, so these are also the first five of the full clip.
    close(output.logits[0, :5, :, ::16, ::16], golden["logits_s16"][:5])


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "task", "seed"), CASES)
@torch.inference_mode()
def test_all_published_logits(backbone: str, task: str, seed: int, avsegformer_data: Path) -> None:
    model = build(avsegformer_data, backbone, task, seed)
    golden = arrays(avsegformer_data, backbone, task, seed)
    logits = model(inputs(task, seed)).logits[0]
    if task == "s4":
        close(logits[..., ::4, ::4], golden["logits_s4"])
        close(model(inputs(task, seed, "audio_alt")).logits[0, ..., ::4, ::4], golden["audio_alt_logits_s4"])
        return
    close(logits[..., ::16, ::16], golden["logits_s16"])
    # Two classes may be as near as rounding errors: a few pixels in 100,000.
    differ = logits.argmax(dim=1).numpy() != golden["argmax"]
    assert differ.mean() < 1e-4
    changed = model(inputs(task, seed, "audio_alt", frames=2)).logits[0]
    close(changed[..., ::32, ::32], golden["audio_alt_logits_s32"])
    if "valid5_logits_s32" in golden:
        padded = model(inputs(task, seed, valid=torch.arange(10)[None] < 5)).logits[0]
        close(padded[:5, :, ::32, ::32], golden["valid5_logits_s32"])
        assert not padded[5:].any()


def loss_case(name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, str]:
    """Logits, mask feature, masks and annotated frames of a case of losses.json, and the kind of loss."""

    def draw(part: str, *shape: int) -> torch.Tensor:
        return seeded_input(1, f"loss_{task}_{part}", shape)

    task, _, kind = name.partition("_")
    if task == "avss":
        exists = torch.tensor(([1] * 5 + [0] * 5) * 2 + [1] * 10, dtype=torch.bool)
        annotated = torch.tensor([1] + [0] * 9 + [1] * 5 + [0] * 5 + [1] * 10, dtype=torch.bool)
        logits = 2 * draw("logits", 30, 71, 48, 48) * exists[:, None, None, None]
        feature = (0.5 + 4 * draw("mask_feature", 30, 256, 12, 12)) * exists[:, None, None, None]
        classes = (40 * draw("label", 30, 48, 48).abs()).floor().long() % 71
        masks = torch.where(draw("foreground", 30, 48, 48) > 0, classes, 0) * annotated[:, None, None]
        return logits, feature, masks, annotated, "cross_entropy"
    logits = 2 * draw("logits", 10, 1, 96, 96)
    feature = 0.5 + 4 * draw("mask_feature", 10, 256, 24, 24)
    if task == "s4":
        annotated = torch.arange(10) % 5 == 0
        masks = torch.zeros(10, 96, 96, dtype=torch.long)
        masks[annotated] = (draw("target", 2, 1, 1, 96, 96)[:, 0, 0] > 0.5).long()
        return logits, feature, masks, annotated, kind
    masks = (draw("target", 10, 1, 96, 96)[:, 0] > 0.5).long()
    masks[3] = 0
    return logits, feature, masks, torch.ones(10, dtype=torch.bool), kind


@pytest.mark.parametrize("name", ["s4_dice", "s4_bce", "ms3_dice", "ms3_bce", "avss"])
def test_losses_and_their_gradients(name: str, avsegformer_data: Path) -> None:
    golden = read_json(avsegformer_data / "losses.json")["cases"][name]
    logits, feature, masks, annotated, kind = loss_case(name)
    logits.requires_grad_()
    feature.requires_grad_()
    mixing = "dice" if kind == "cross_entropy" else kind
    iou = segmentation_loss(logits[annotated], masks[annotated], kind)
    mix = 0.1 * mix_loss(feature[annotated], masks[annotated], mixing)
    assert iou.item() == pytest.approx(golden["terms"]["iou_loss"], rel=1e-6)
    assert mix.item() == pytest.approx(golden["terms"]["mix_loss"], rel=1e-6)
    (iou + mix).backward()
    for tensor, key in ((logits, "grad_logits"), (feature, "grad_mask_feature")):
        assert tensor.grad is not None
        norms = tensor.grad.flatten(1).norm(dim=1).tolist()
        assert norms == pytest.approx(golden[f"{key}_norm_per_frame"], rel=1e-4, abs=1e-12)


@pytest.mark.slow
def test_gradient_of_every_parameter(avsegformer_data: Path) -> None:
    golden = read_json(avsegformer_data / "r50_s4_grads_seed1.json")
    model = build(avsegformer_data, "r50", "s4", 1)
    target = torch.zeros(1, 5, 224, 224, dtype=torch.long)
    target[0, 0] = seeded_input(1, "train_target_s4", (1, 1, 1, 224, 224))[0, 0, 0] > 0.5
    first = torch.arange(5)[None] == 0
    losses = model.losses(inputs("s4", 1, masks=target, annotated=first))
    assert losses["iou"].item() == pytest.approx(golden["terms"]["iou_loss"], rel=1e-5)
    assert losses["mix"].item() == pytest.approx(golden["terms"]["mix_loss"], rel=1e-5)
    sum(losses.values()).backward()

    parameters = dict(model.named_parameters())
    largest = max(norm for norm in golden["grad_norms"].values() if norm is not None)
    wrong = {}
    for published, norm in golden["grad_norms"].items():
        name = rename(published)
        if norm is None:  # never used there, not kept here
            assert name is None, published
            continue
        found = parameters.pop(name).grad.norm().item()
        if found != pytest.approx(norm, rel=1e-3, abs=1e-7 * largest):
            wrong[published] = (found, norm)
    assert wrong == {}
    assert parameters == {}


def test_tasks_of_the_golden_data_are_those_of_the_harness() -> None:
    assert (S4.channels, S4.frames, AVSS.channels, AVSS.frames) == (1, 5, 71, 10)
