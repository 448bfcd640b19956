"""TPAVI as released: loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from avsbench_methods.tpavi.loss import matching_loss
from avsbench_methods.tpavi.options import Options
from torch import Tensor

from avsbench_harness.tasks import AVSS, MS3, Task


def matching(options: dict[str, Any], sounds: Tensor, features: Tensor, task: Task = MS3) -> float:
    """The matching loss on one level of 4x4 pixels, mask probability 1/2 everywhere."""
    chosen = Options.of({"avm_stages": [1], **options}, task, "released")
    channels = task.channels
    return matching_loss(torch.zeros(len(features), channels, 8, 8), [features], [sounds], chosen).item()


def test_vv_compares_frames_with_similar_audio() -> None:
    torch.manual_seed(0)
    features = torch.randn(3, 6, 4, 4)
    sounds = torch.tensor([[0.0], [3.0], [4.0]]).expand(-1, 6)
    means = features.mean(dim=(2, 3)) / 2
    options = {"avm": "vv", "avm_distance": "euclidean", "avm_sum": False}
    expected = F.pairwise_distance(means[[1, 2, 1]], means).mean().item()
    assert matching({**options, "vv_self_distance": 1e6}, sounds, features) == pytest.approx(expected)
    # Frames 1 and 2 are sqrt(6) apart, frame 0 is 3 sqrt(6) = 7.3 from the next: less than 7.3 added to the
    # distance from itself leaves it with itself.
    alone = F.pairwise_distance(means[[0, 2, 1]], means).mean().item()
    assert matching({**options, "vv_self_distance": 7}, sounds, features) == pytest.approx(alone)
    assert matching(options, sounds, features) == pytest.approx(expected)
    assert matching(options, 2 * sounds, features) == pytest.approx(alone)


def test_vv_with_kl_ignores_the_chosen_frame_on_avss_as_released() -> None:
    torch.manual_seed(0)
    features, sounds = torch.randn(3, 6, 4, 4), torch.randn(3, 6)
    vv, av, mended = (
        matching(options, sounds, features, AVSS)
        for options in ({"avm": "vv"}, {"avm": "av"}, {"avm": "vv", "vv_reads_audio": False})
    )
    assert vv == av
    assert mended != av
