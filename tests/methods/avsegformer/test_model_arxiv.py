"""AVSegFormer of arXiv v1, compared with the first public code (tests/fixtures/avsegformer/arxiv_*)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from avsbench_methods.avsegformer import AVSegFormer
from avsbench_methods.avsegformer.model import AVSegFormerModel
from torch import Tensor

from avsbench_harness.data.batch import Batch
from avsbench_harness.files import read_json
from avsbench_harness.tasks import AVSS, MS3, Task, get_task
from avsbench_harness.testing.seeded import seeded_input, seeded_state

from . import helpers_paper

#: The published float32 outputs are themselves about 2e-5 from float64.
ATOL = {"s4": 1e-4, "avss": 2e-4}

#: Backbone and task of the slower cases.
CASES = [("r50", "avss"), ("pvt", "s4"), ("pvt", "avss")]


def published(folder: Path, backbone: str, task: str) -> dict[str, Tensor]:
    """The seeded state dict; names and shapes are those of the released code without its query generator."""
    shapes = read_json(folder / f"{backbone}_s4.keys.json")
    shapes = {name: shape for name, shape in shapes.items() if not name.startswith("head.query_generator.")}
    for name in ("head.fc.4.weight", "head.attn_fc.4.weight"):
        shapes[name][0] = get_task(task).channels
    return seeded_state(1, shapes)


def stats(values: Tensor) -> list[float]:
    """Mean, standard deviation, largest magnitude."""
    values = values.double()
    return [float(values.mean()), float(values.std(correction=0)), float(values.abs().max())]


@torch.inference_mode()
@pytest.mark.parametrize(
    ("backbone", "task"),
    [
        ("r50", "s4"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in CASES),
    ],
)
def test_published_masks_of_the_last_and_of_every_decoder_layer(
    backbone: str, task: str, avsegformer_data: Path
) -> None:
    with torch.device("meta"):  # random weights would be replaced
        model = AVSegFormer().build(get_task(task), backbone, variant="arxiv")
    assert isinstance(model, AVSegFormerModel)
    model.to_empty(device="cpu").load_upstream(published(avsegformer_data, backbone, task))
    with np.load(avsegformer_data / f"arxiv_{backbone}_{task}_seed1.npz") as file:
        golden = dict(file)
    length, atol = get_task(task).frames, ATOL[task]
    batch = Batch(
        seeded_input(1, "images", (1, length, 3, 224, 224)), seeded_input(1, "audio", (1, length, 128))
    )
    computed = model.eval()._compute(batch, torch.ones(1, length, dtype=torch.bool), intermediate=True)

    def close(found: Tensor, name: str) -> None:
        torch.testing.assert_close(found, torch.from_numpy(golden[name]), rtol=0, atol=atol)

    masks = torch.stack(computed.intermediate)
    if task == "s4":
        close(masks[..., ::8, ::8], "inter_s8")
        close(computed.logits[..., ::4, ::4], "logits_s4")
    else:
        close(masks[[0, 5]][..., ::32, ::32], "inter_s32_first_last")
        close(computed.logits[..., ::32, ::32], "logits_s32")
        differ = computed.logits.argmax(dim=1)[:, ::4, ::4].numpy() != golden["argmax_s4"]
        assert differ.mean() < 1e-4  # two classes may be as near as rounding errors
    assert stats(computed.logits) == pytest.approx(golden["logits_stats"], abs=atol)
    for layer, expected in zip(masks, golden["inter_stats"], strict=True):
        assert stats(layer) == pytest.approx(expected, abs=atol)


@pytest.mark.parametrize("task", [MS3, AVSS], ids=["ms3", "avss"])
def test_losses_of_the_mask_and_of_every_intermediate_mask(task: Task) -> None:
    model = helpers_paper.build(task, "arxiv")
    assert model.mask_reformer is not None
    draw = torch.Generator().manual_seed(0)
    images, audio = torch.randn(1, 2, 3, 64, 64, generator=draw), torch.rand(1, 2, 128, generator=draw)
    truth = torch.randint(71 if task.semantic else 2, (1, 2, 64, 64), generator=draw)
    layers: list[Tensor] = []
    model.mask_reformer.register_forward_hook(lambda *call: layers.append(call[2]))
    with torch.no_grad():
        losses = model.losses(Batch(images, audio, masks=truth))
        logits = model(Batch(images, audio)).logits[0].double()

    def loss(logits: Tensor) -> float:
        """Dice on the sigmoid, or cross-entropy over the classes: the mean over the frames."""
        values = []
        for frame, mask in zip(logits.double(), truth[0], strict=True):
            if task.semantic:
                chosen = frame.log_softmax(dim=0).gather(0, mask[None])
                values.append(-chosen.mean())
            else:
                p, g = frame[0].sigmoid(), mask.double()
                values.append(1 - 2 * (p * g).sum() / (p.square().sum() + g.square().sum() + 2e-3))
        return float(torch.stack(values).mean())

    # Frames are computed one by one on the CPU: the layers of the first, then those of the second.
    count = helpers_paper.SMALL["decoder_layers"]
    masks = [torch.cat(layers[layer::count]) for layer in range(count)]
    assert set(losses) == {"iou", "inter"}
    assert float(losses["iou"]) == pytest.approx(loss(logits), rel=1e-5)
    assert float(losses["inter"]) == pytest.approx(0.1 * sum(map(loss, masks)), rel=1e-5)
