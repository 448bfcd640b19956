"""Three steps of the released training on S4 against its optimiser and loss, written out here."""

from __future__ import annotations

import functools
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from avsbench_methods.combo import model as network
from torch import Tensor

from avsbench_harness.data.batch import Batch

from ..trajectory import STEPS, Optimizer, bce, compare, train

SMALL = "{queries: 4, dim: 32, encoder_layers: 1, encoder_ffn_dim: 32, decoder_layers: 2, ffn_dim: 32, \
audio_mlp_dim: 32, fusion_dropout: 0}"

#: Side of the mask logits.
SIDE = 16


#: Norms (in the pixel decoder each follows its convolution) and embeddings have no weight decay.
UNDECAYED = re.compile(
    r"norm|^pixel_decoder\.(input_projections\.\d|lateral|output)\.1\.|^audio_queries\.(queries|positions)$"
    r"|^fusion\.(visual_embedding|audio_positions)$|^decoder\.level_embedding$"
)

#: AdamW with poly decay of the learning rate, a tenth of it for backbones; gradient norm at most 0.01.
PUBLISHED = Optimizer(
    lr=lambda name, step: 1e-4 * (1 - step / STEPS) ** 0.9 * (0.1 if name.startswith("backbone.") else 1),
    decay=lambda name: 0.0 if UNDECAYED.search(name) else 0.05,
    decoupled=True,
    clip=0.01,
)


def centres() -> Tensor:
    """The centres of the pixels of the mask logits, (P,2)."""
    places = (torch.arange(SIDE, dtype=torch.float64) + 0.5) / SIDE
    rows, columns = torch.meshgrid(places, places, indexing="ij")
    return torch.stack((columns, rows), dim=-1).flatten(0, 1)


def at_centres(mask: Tensor) -> Tensor:
    """A mask (64,64) sampled bilinearly at the centres, (P,): the mean of four pixels."""
    return mask.double().view(SIDE, 4, SIDE, 4)[:, 1:3, :, 1:3].mean(dim=(1, 3)).flatten()


def depth_loss(classes: Tensor, masks: Tensor, truths: list[Tensor]) -> Tensor:
    """Class, mask and Dice loss of the first frames at one depth: (F,Q,3), (F,Q,P), F masks (64,64)."""
    entropy, weight, matched = torch.zeros(()), 0.0, []
    for logits, predicted, truth in zip(classes, masks, truths, strict=True):
        labels = [label for label in (0, 1) if (truth == label).any()]
        wanted = [at_centres(truth == label) for label in labels]
        chance = logits.softmax(dim=-1)

        def cost(pairs: Any, chance: Tensor = chance, predicted: Tensor = predicted) -> float:
            return sum(
                -2 * chance[query, label] + 5 * bce(predicted[query].sigmoid(), mask).mean()
                + 5 * dice(predicted[query], mask)
                for query, label, mask in pairs
            ).item()  # fmt: skip

        candidates = itertools.permutations(range(len(logits)), len(labels))
        best = min((list(zip(chosen, labels, wanted, strict=True)) for chosen in candidates), key=cost)
        matched += [(predicted[query], mask) for query, _, mask in best]
        found = {query: label for query, label, _ in best}
        for query, row in enumerate(chance.log()):
            share = 1.0 if query in found else 0.1
            entropy = entropy - share * row[found.get(query, 2)]
            weight += share
    count = max(len(matched), 1)
    of_masks = sum(bce(logits.sigmoid(), mask).mean() for logits, mask in matched) / count
    return 2 * entropy / weight + 5 * of_masks + 5 * sum(dice(*pair) for pair in matched) / count


def dice(logits: Tensor, truth: Tensor) -> Tensor:
    probability = logits.sigmoid()
    return 1 - (2 * (probability * truth).sum() + 1) / (probability.sum() + truth.sum() + 1)


def consistency(masks: Tensor) -> Tensor:
    """The inter-frame term of one depth, from all masks of all frames, (B,T,Q,P)."""
    frames = masks.flatten(2)
    pairs = [(one[index], one[index + 1]) for one in frames for index in range(frames.shape[1] - 1)]
    distances = [1 - (one @ two) / (one.norm() * two.norm()) for one, two in pairs]
    return sum(distance * torch.exp(-distance) for distance in distances) / len(pairs)


def loss(model: network.ComboModel, batch: Batch) -> Tensor:
    """The losses of the first frames at all depths, and ten times the consistency of all but the last."""
    clips, frames = batch.shape[:2]
    output = model.depths(batch)
    assert batch.masks is not None
    truths = list(batch.masks[:, 0])
    total = torch.zeros(())
    for depth, classes in enumerate(output.class_logits):
        masks = torch.einsum("nqc,nchw->nqhw", output.embeddings[depth], output.features).flatten(2)
        masks, first = (
            masks.view(clips, frames, *masks.shape[1:]),
            classes.view(clips, frames, *classes.shape[1:]),
        )
        total = total + depth_loss(first[:, 0], masks[:, 0], truths)
        if depth < len(output.class_logits) - 1:
            total = total + 10 * consistency(masks)
    return total


def test_the_released_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the losses at fixed points instead of random ones, and augmented and padded frames."""
    monkeypatch.setattr(network, "set_losses", functools.partial(network.set_losses, points=centres()))
    trajectory = train("combo", "s4", tmp_path, f"options={SMALL}", "maskige=felzenszwalb")
    assert any((batch.masks == 255).any() for batch in trajectory.batches)
    compare(trajectory, PUBLISHED, loss)
