"""TPAVI's loss, compared with the paper's equations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from avsbench_methods.tpavi.loss import matching_loss
from avsbench_methods.tpavi.options import Options

from avsbench_harness.tasks import MS3


def test_matching_loss_is_the_papers_formula() -> None:
    options = Options.of({}, MS3, "paper")
    torch.manual_seed(4)
    logits = torch.randn(3, 1, 8, 8)
    features = [torch.randn(3, 6, side, side) for side in (8, 4, 2, 1)]
    sounds = [torch.randn(3, 6) for _ in features]
    expected = 0.0
    for feature, sound in zip(features, sounds, strict=True):
        block = 8 // feature.shape[-1]
        for frame in range(3):
            mask = 1 / (1 + torch.exp(-logits[frame, 0]))
            mask = mask.unfold(0, block, block).unfold(1, block, block).mean(dim=(2, 3))
            seen = F.softmax((feature[frame] * mask).mean(dim=(1, 2)), dim=0)
            target = F.softmax(sound[frame], dim=0)
            expected += float((target * (target / seen).log()).sum()) / 3
    assert matching_loss(logits, features, sounds, options).item() == pytest.approx(expected, rel=1e-5)
