"""Three steps of the published trainings on S4 against their optimiser and loss, written out here."""

from __future__ import annotations

from pathlib import Path

import torch
from avsbench_methods.avsegformer.model import AVSegFormerModel
from torch import Tensor

from avsbench_harness.data.batch import Batch
from avsbench_harness.nn.model import Model

from ..trajectory import Optimizer, compare, resize, train

SMALL = "{queries: 4, dim: 32, encoder_layers: 1, decoder_layers: 1, generator_layers: 1, ffn_dim: 32, \
mask_mlp_dim: 32, mask_channels: 16, dropout: 0}"


def published(frozen_steps: int) -> Optimizer:
    """AdamW, one learning rate without schedule, PyTorch's default decay; the backbone frozen at first."""
    return Optimizer(
        lr=lambda name, step: 2e-5,
        decay=lambda name: 0.01,
        decoupled=True,
        frozen=lambda name, step: name.startswith("backbone.") and step < frozen_steps,
    )


def dice(logits: Tensor, truth: Tensor) -> Tensor:
    """Dice loss per frame with squares in the denominator, (B,H,W) to (B,)."""
    probability = 1 / (1 + torch.exp(-logits))
    overlap = (probability * truth).sum(dim=(1, 2))
    return 1 - 2 * overlap / ((probability**2).sum(dim=(1, 2)) + 1e-3 + (truth**2).sum(dim=(1, 2)) + 1e-3)


def loss(model: Model, batch: Batch) -> Tensor:
    """Dice of the first frame, plus a tenth of the Dice of the mask feature's mean over the channels."""
    output = model(batch)
    assert batch.masks is not None
    truth = (batch.masks[:, 0] > 0).double()
    mixed = resize(output.mask_feature[:, 0].mean(dim=1), truth.shape[-2:])
    return dice(output.logits[:, 0, 0], truth).mean() + 0.1 * dice(mixed, truth).mean()


def loss_with_intermediate_masks(model: Model, batch: Batch) -> Tensor:
    """Dice of the first frame, plus a tenth of the Dice of every decoder layer's mask of that frame."""
    assert isinstance(model, AVSegFormerModel)
    assert batch.masks is not None
    first = torch.zeros(batch.masks.shape[:2], dtype=torch.bool)
    first[:, 0] = True
    computed = model._compute(batch, first, intermediate=True)
    truth = (batch.masks[:, 0] > 0).double()
    total = dice(computed.logits[:, 0], truth).mean()
    for layer in computed.intermediate:
        total = total + 0.1 * dice(layer[:, 0], truth).mean()
    return total


def test_the_released_training(tmp_path: Path) -> None:
    """Two steps an epoch, and one frozen epoch: the backbone is trained in the third step only."""
    trajectory = train("avsegformer", "s4", tmp_path, f"options={SMALL}", "backbone.freeze_epochs=1")
    compare(trajectory, published(frozen_steps=2), loss)


def test_the_training_of_the_first_public_code(tmp_path: Path) -> None:
    """Four clips make one step an epoch; two frozen epochs, so the third step trains the backbone."""
    small = SMALL.replace("decoder_layers: 1, generator_layers: 1", "decoder_layers: 2")
    trajectory = train(
        "avsegformer",
        "s4",
        tmp_path,
        f"options={small}",
        "backbone.freeze_epochs=2",
        "batch_size=4",
        variant="arxiv",
    )
    compare(trajectory, published(frozen_steps=2), loss_with_intermediate_masks)
