from __future__ import annotations

import pytest
import torch

from avsbench_harness.data.random_batch import random_batch
from avsbench_harness.tasks import AVSS, MS3, S4, Task


@pytest.mark.parametrize(("task", "annotated"), [(S4, 1), (MS3, 5), (AVSS, 10)])
def test_annotated_frames_are_those_of_training_clips(task: Task, annotated: int) -> None:
    frames = random_batch(task, clips=2, side=8).annotated_frames()
    assert frames.sum(1).tolist() == [annotated] * 2
    assert frames[:, 0].all()


def test_annotated_frames_can_be_chosen() -> None:
    assert random_batch(S4, side=8, annotated="all").annotated_frames().sum() == 5
    assert random_batch(AVSS, side=8, annotated="first").annotated_frames().sum() == 1
    first, second = random_batch(S4, side=8), random_batch(S4, side=8, annotated="all")
    assert torch.equal(first.images, second.images)


def test_seed_and_maskiges() -> None:
    one, two = random_batch(S4, side=8, seed=1, maskige=False), random_batch(S4, side=8)
    assert one.maskige is None
    assert two.maskige is not None
    assert not torch.equal(one.images, two.images)
