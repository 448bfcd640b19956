"""Three steps of the released training on S4 against its optimiser and loss, written out here."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from avsbench_harness.data.batch import Batch
from avsbench_harness.nn.model import Model

from ..trajectory import Optimizer, bce, compare, resize, train

SMALL = "{queries: 4, dim: 64, encoder_layers: 2, decoder_layers: 2, ffn_dim: 32, dropout: 0}"

#: Adam, one learning rate without schedule, no decay, nothing frozen, gradient norm at most 5.
PUBLISHED = Optimizer(lr=lambda name, step: 1e-5, decay=lambda name: 0.0, decoupled=False, clip=5.0)


def dice(logits: Tensor, truth: Tensor) -> Tensor:
    """Dice coefficient of a mask, smoothed by 1."""
    probability = logits.sigmoid()
    return (2 * (probability * truth).sum() + 1) / (probability.sum() + truth.sum() + 1)


def layer_loss(reference: Tensor, masks: Tensor, truth: Tensor) -> Tensor:
    """The loss of one decoder layer on the first frame of a clip: reference logits (Q,2), masks (Q,H,W)."""
    probability = reference.softmax(dim=-1)
    costs = [-2 * chance[0] - 7 * dice(mask, truth) for chance, mask in zip(probability, masks, strict=True)]
    best = min(range(len(costs)), key=lambda query: costs[query].item())
    log = probability.log()
    entropy = -log[best, 0] - 0.1 * sum(log[query, 1] for query in range(len(log)) if query != best)
    chance = masks[best].sigmoid()
    of_truth = truth * chance + (1 - truth) * (1 - chance)
    focal = -(0.25 * truth + 0.75 * (1 - truth)) * (1 - of_truth) ** 2 * of_truth.log()
    again = bce(chance.sigmoid(), truth)  # a sigmoid of the probability, as published
    return entropy + 5 * (1 - dice(masks[best], truth)) + 5 * focal.mean() + 4 * again.mean()


def loss(model: Model, batch: Batch) -> Tensor:
    """The layers' losses of the first frame, summed, and averaged over the clips."""
    output = model(batch)
    assert batch.masks is not None
    total = torch.zeros(())
    for clip, masks in enumerate(batch.masks):
        truth = (masks[0] > 0).double()
        for layer in (output, *output.earlier):
            resized = resize(layer.mask_logits[clip, 0], truth.shape)
            total = total + layer_loss(layer.reference_logits[clip, 0], resized, truth)
    return total / len(batch.masks)


def test_the_released_training(tmp_path: Path) -> None:
    trajectory = train("catr", "s4", tmp_path, f"options={SMALL}")
    compare(trajectory, PUBLISHED, loss)
