"""QDFormer's targets, compared with the paper's equations."""

from __future__ import annotations

import torch
from avsbench_methods.qdformer.targets import clip_objects
from torch.testing import assert_close


def test_objects_of_a_clip() -> None:
    masks = torch.zeros(2, 4, 8, dtype=torch.int64)
    masks[0, 1:3, 2:6] = 5
    masks[0, 3, 7] = 2
    masks[1, 0, 0] = 5
    objects = clip_objects(masks)
    assert objects.labels.tolist() == [1, 4]  # classes 2 and 5 without background
    assert objects.present.tolist() == [[True, False], [True, True]]
    assert objects.masks.shape == (2, 2, 4, 8)
    assert objects.masks[1, 0].sum() == 8
    want = [
        [[7.5 / 8, 3.5 / 4, 1 / 8, 1 / 4], [0, 0, 0, 0]],
        [[4 / 8, 2 / 4, 4 / 8, 2 / 4], [0.5 / 8, 0.5 / 4, 1 / 8, 1 / 4]],
    ]
    assert_close(objects.boxes, torch.tensor(want))
    assert len(clip_objects(torch.zeros(2, 4, 8, dtype=torch.int64)).labels) == 0
