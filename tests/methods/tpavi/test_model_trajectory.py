"""Three steps of the released training on MS3 against its optimiser and loss, written out here."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from avsbench_harness.data.batch import Batch
from avsbench_harness.nn.model import Model

from ..trajectory import Optimizer, bce, compare, train

#: Adam, one learning rate without schedule, no decay, nothing frozen, no clipping.
PUBLISHED = Optimizer(lr=lambda name, step: 1e-4, decay=lambda name: 0.0, decoupled=False)


def loss(model: Model, batch: Batch) -> Tensor:
    """Cross-entropy of all frames, plus half the mean divergence of audio and masked pixels per level."""
    output = model(batch)
    logits = output.logits[:, :, 0]  # (B,T,H,W)
    assert batch.masks is not None
    total = bce(logits.sigmoid(), (batch.masks > 0).double()).mean()
    for feature, sound in zip(output.features, output.sounds, strict=True):
        height, width = feature.shape[-2:]
        blocks = logits.unflatten(3, (width, -1)).unflatten(2, (height, -1))  # (B,T,h,s,w,s)
        mask = 1 / (1 + torch.exp(-blocks.mean(dim=(3, 5))))
        masked = (feature * mask[:, :, None]).mean(dim=(-2, -1))  # over the whole map
        visual, audio = (values.softmax(dim=-1) for values in (masked, sound))
        divergence = (audio * (audio.log() - visual.log())).sum()  # over frames and channels
        total = total + 0.5 * divergence / 4
    return total


def test_the_released_training(tmp_path: Path) -> None:
    trajectory = train("tpavi", "ms3", tmp_path, "options.dim=16")
    compare(trajectory, PUBLISHED, loss)
