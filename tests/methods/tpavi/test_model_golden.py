"""TPAVI, compared with the published implementation (tests/fixtures/tpavi)."""

from __future__ import annotations

import functools
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from avsbench_methods.tpavi import TPAVI
from avsbench_methods.tpavi.loss import matching_loss, segmentation_loss
from avsbench_methods.tpavi.model import TPAVIModel, TPAVIOutput
from avsbench_methods.tpavi.options import Options
from avsbench_methods.tpavi.upstream import rename

from avsbench_harness.data.batch import Batch
from avsbench_harness.files import read_json
from avsbench_harness.tasks import get_task
from avsbench_harness.testing.seeded import seeded_input, seeded_state

#: The published float32 logits are themselves about 1e-5 from float64.
ATOL = 2e-4

CASES = [(backbone, task, seed) for backbone in ("r50", "pvt") for task in ("s4", "avss") for seed in (1, 2)]


def published_shapes(folder: Path, backbone: str, task: str) -> dict[str, list[int]]:
    """The names and shapes of the published state dict, without unused entries."""
    shapes = read_json(folder / f"{backbone}_s4.keys.json")
    if task == "avss":
        shapes = {name: shape for name, shape in shapes.items() if not name.endswith("align_channel.bias")}
        for name in ("output_conv.4.weight", "output_conv.4.bias"):
            shapes[name] = [71, *shapes[name][1:]]
    return {name: shape for name, shape in shapes.items() if rename(name) is not None}


def build(folder: Path, backbone: str, task: str, seed: int) -> TPAVIModel:
    """The network with the weights of a golden case."""
    with torch.device("meta"):  # no time for weights that are replaced
        model = TPAVI().build(get_task(task), backbone, variant="released")
    assert isinstance(model, TPAVIModel)
    model.to_empty(device="cpu")
    model.load_upstream(seeded_state(seed, published_shapes(folder, backbone, task)))
    return model.eval()


def inputs(task: str, seed: int, **fields: Any) -> Batch:
    """Return the clip of a golden case."""
    length = get_task(task).frames
    images = seeded_input(seed, "images", (1, length, 3, 224, 224))
    return Batch(images, seeded_input(seed, "audio", (1, length, 128)), **fields)


def close(found: torch.Tensor, expected: np.ndarray, atol: float = ATOL) -> None:
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=atol)


def close_stats(found: torch.Tensor, expected: np.ndarray) -> None:
    """Mean, deviation and largest magnitude of a whole array."""
    values = found.double()
    stats = torch.stack([values.mean(), values.std(correction=0), values.abs().max()])
    close(stats, expected)


@functools.cache
def arrays(folder: Path, backbone: str, task: str, seed: int) -> dict[str, np.ndarray]:
    with np.load(folder / f"{backbone}_{task}_seed{seed}.npz") as file:
        return dict(file)


def close_features(output: TPAVIOutput, golden: dict[str, np.ndarray], frames: int) -> None:
    """Compare all levels and projected audio of the first frames of the clip."""
    steps = (8, 4, 2, 1)
    for stage, (level, sound, step) in enumerate(zip(output.features, output.sounds, steps, strict=True), 1):
        close(level[0, :frames, ::32, ::step, ::step], golden[f"feat{stage}_sub"][:frames])
        close(sound[0, :frames, ::16], golden[f"audio{stage}"].reshape(-1, 16)[:frames])


@pytest.mark.slow
@torch.inference_mode()
def test_avss_logits_of_a_clip_with_five_frames(tpavi_data: Path) -> None:
    golden = arrays(tpavi_data, "r50", "avss", 1)
    model = build(tpavi_data, "r50", "avss", 1)
    output = model(inputs("avss", 1, valid=torch.arange(10)[None] < 5))
    # The two halves of a clip are independent, so these are also the first five of the full clip.
    close_features(output, golden, 5)
    close(output.logits[0, :5, ::10, ::16, ::16], golden["logits_c10_s16"][:5])
    close(output.logits[0, :5, ::10, ::16, ::16], golden["valid5_logits_c10_s16"])
    assert not output.logits[0, 5:].any()
    assert not any(level[0, 5:].any() for level in (*output.features, *output.sounds))


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "task", "seed"), CASES)
@torch.inference_mode()
def test_all_published_outputs(backbone: str, task: str, seed: int, tpavi_data: Path) -> None:
    golden = arrays(tpavi_data, backbone, task, seed)
    output = build(tpavi_data, backbone, task, seed)(inputs(task, seed))
    close_features(output, golden, get_task(task).frames)
    for stage, level in enumerate(output.features, 1):
        close_stats(level, golden[f"feat{stage}_stats"])
    close_stats(output.logits, golden["logits_stats"])
    logits = output.logits[0]
    if task == "s4":
        close(logits[:, 0, ::4, ::4], golden["logits_s4"])
        return
    close(logits[:, ::10, ::16, ::16], golden["logits_c10_s16"])
    sure = golden["argmax_sure_s8"]
    classes = logits.argmax(dim=1)[:, ::8, ::8].numpy()
    assert np.array_equal(classes[sure], golden["argmax_s8"][sure])


@pytest.mark.slow
@torch.inference_mode()
def test_the_models_of_ms3_and_s4_are_the_same(tpavi_data: Path) -> None:
    golden = arrays(tpavi_data, "r50", "s4", 2)
    output = build(tpavi_data, "r50", "ms3", 2)(inputs("ms3", 2))
    close(output.logits[0, :, 0, ::4, ::4], golden["logits_s4"])


#: Published flags as options.
FLAGS = {
    "lambda_1": "avm_weight",
    "norm_fea": "avm_normalise",
    "threshold": "avm_hard_mask",
}


def loss_options(case: dict[str, Any]) -> Options:
    """Return the options of a golden loss; without a published flag the task's default."""
    given, task = case["options"], case["name"].split("_")[0]
    if not given:
        return Options.of({"avm": "none"}, get_task(task), "released")
    options: dict[str, Any] = {ours: given[flag] for flag, ours in FLAGS.items() if flag in given}
    options["avm"] = "vv" if given.get("closer_flag") else "av"
    options["avm_stages"] = [stage + 1 for stage in given.get("count_stages", given.get("stages"))]
    if given.get("euclidean_flag"):
        options["avm_distance"] = "euclidean"
    return Options.of(options, get_task(task), "released")


def loss_case(case: dict[str, Any]) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Logits, features and sounds by their names in the file; masks; annotated frames."""
    seed, clips, task = case["seed"], case["B"], case["name"].split("_")[0]
    frames = clips * case["T"]

    def repeated(values: torch.Tensor, times: int) -> torch.Tensor:
        return values.repeat_interleave(times, dim=-2).repeat_interleave(times, dim=-1)

    leaves = {f"a{i}": seeded_input(seed, f"a_fea{i}", (clips, case["T"], 256)) for i in range(4)}
    leaves |= {
        f"v{i}": seeded_input(seed, f"v_map{i}", (frames, 256, side, side))
        for i, side in enumerate((56, 28, 14, 7))
    }
    if task == "avss":
        leaves["pred"] = seeded_input(seed, "pred", (frames, 71, 56, 56))
        leaves["pred"][:, 0] += 2.5
        stream = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(b"input:labels")]))
        labels = torch.from_numpy(stream.integers(0, 71, size=(frames, 14, 14)))
        return leaves, repeated(labels, 4), torch.tensor(case["gt_flags"]).flatten() > 0
    leaves["pred"] = 2 * seeded_input(seed, "pred", (frames, 1, 224, 224))
    annotated = torch.arange(frames) % 5 == 0 if task == "s4" else torch.ones(frames, dtype=torch.bool)
    cells = (seeded_input(seed, "target_masks", (int(annotated.sum()), 14, 14)) > 0.5).long()
    if task == "ms3":
        cells[4] = 0
    masks = torch.zeros(frames, 224, 224, dtype=torch.long)
    masks[annotated] = repeated(cells, 16)
    return leaves, masks, annotated


LOSS_CASES = [
    "s4_first_frame_b1", "s4_first_frame_b2", "s4_first_frame_plus_cosine", "ms3_bce_only", "ms3_train_sh",
    "ms3_kl_normalised", "ms3_kl_threshold", "ms3_euclid", "ms3_avm_vv_kl", "avss_v2_ce_only",
    "avss_v2_train_sh", "avss_v1s_v2_train_sh", "avss_v1m_train_sh",
]  # fmt: skip


@pytest.mark.parametrize("name", LOSS_CASES)
def test_losses_and_their_gradients(name: str, tpavi_data: Path) -> None:
    cases = {case["name"]: case for case in read_json(tpavi_data / "losses.json")["cases"]}
    assert sorted(cases) == sorted(LOSS_CASES)
    case, options = cases[name], loss_options(cases[name])
    leaves, masks, annotated = loss_case(case)
    for leaf in leaves.values():
        leaf.requires_grad_()
    total = segmentation_loss(leaves["pred"][annotated], masks[annotated])
    assert total.item() == pytest.approx(case["parts"]["iou_loss"], rel=1e-6)
    if options.avm != "none":
        frames = annotated if name.startswith("avss") else torch.ones_like(annotated)
        term = matching_loss(
            leaves["pred"][frames],
            [leaves[f"v{i}"][frames] for i in range(4)],
            [leaves[f"a{i}"].flatten(0, 1)[frames] for i in range(4)],
            options,
        )
        assert term.item() == pytest.approx(case["parts"]["sa_loss"], rel=2e-6, abs=2e-6)
        total = total + options.avm_weight * term
    assert total.item() == pytest.approx(case["total"], rel=1e-6)
    total.backward()
    for key, expected in case["grad_abs_sum"].items():
        gradient = leaves[key].grad
        found = 0.0 if gradient is None else gradient.abs().sum().item()
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-6), key
