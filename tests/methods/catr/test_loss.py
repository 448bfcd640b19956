"""CATR as released: loss."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from avsbench_methods.catr.loss import Targets, clip_losses, reference_loss
from avsbench_methods.catr.options import Options

from avsbench_harness.testing.seeded import seeded_input

from .helpers import same


def predictions(frames: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Reference (t,6,2) and mask logits (t,6,4,4), and truth (t,8,8) that is empty in the first frame."""
    truth = (seeded_input(1, "truth", (frames, 8, 8)) > 0).float()
    truth[0] = 0
    reference = seeded_input(1, "reference", (frames, 6, 2))
    return reference, seeded_input(1, "masks", (frames, 6, 4, 4)), truth


def losses_of(
    reference: torch.Tensor, masks: torch.Tensor, truth: torch.Tensor, **options: Any
) -> dict[str, torch.Tensor]:
    chosen = Options(**options)
    return clip_losses(reference, masks, Targets.of(truth, 2, chosen), chosen)


def test_cross_entropy_of_probabilities_or_of_logits() -> None:
    released = losses_of(*predictions())["bce"]
    assert 0.31 < released < 1.32
    reference, logits, truth = predictions()
    sure = 100 * (2 * F.interpolate(truth[:, None], (4, 4)).expand(-1, 6, -1, -1) - 1)
    truth = F.interpolate(sure[:, :1], (8, 8), mode="bilinear", align_corners=False)[:, 0].gt(0).float()
    assert losses_of(reference, sure, truth)["bce"] > 0.31
    assert losses_of(reference, sure, truth, bce_input="logit")["bce"] < 1e-4
    assert losses_of(reference, logits, truth, bce_input="logit")["bce"] > 0.5


def test_target_of_the_matched_query_in_silent_frames() -> None:
    reference, _, truth = predictions()
    matched = torch.tensor([4])
    entropy = -reference.log_softmax(dim=-1)
    others = 0.1 * (entropy[..., 1].sum(dim=1) - entropy[:, 4, 1])
    for choice, first in {"sounding": entropy[0, 4, 0], "silent": 0.1 * entropy[0, 4, 1]}.items():
        options = Options(silent_target=choice)
        wanted = Targets.of(truth, 2, options).references
        found = reference_loss(reference, matched, wanted, options)
        same(found, (others + torch.stack((first, entropy[1, 4, 0]))).mean())
