"""AQFormer's losses, compared with the paper's equations."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from avsbench_methods.aqformer.loss import (
    mask_losses,
    masked_average,
    mean_similarity,
    similarity_loss,
    sounding_class_loss,
)
from torch.testing import assert_close

from avsbench_harness.testing.seeded import seeded_input


def test_similarity_by_hand() -> None:
    """Two frames and one layer: |0 - 1/sqrt 2| for (1,2) and (2,1), 0 for (1,1) and (2,2)."""
    embeddings = torch.tensor([[[[1.0, 0.0]], [[0.0, 5.0]]]])
    pooled = torch.tensor([[[[2.0, 0.0]], [[3.0, 3.0]]]])
    everything = torch.ones(1, 2, dtype=torch.bool)
    assert_close(similarity_loss(embeddings, pooled, everything, "sum"), torch.tensor(math.sqrt(2.0)))
    assert_close(similarity_loss(embeddings, pooled, everything, "mean"), torch.tensor(math.sqrt(2.0) / 4))
    assert similarity_loss(embeddings, pooled, torch.tensor([[True, False]]), "sum") == 0


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("seed", [1, 2])
def test_similarity_of_layers_and_pairs_averaged_over_clips(seed: int, reduction: str) -> None:
    embeddings, pooled = (seeded_input(seed, name, (3, 4, 2, 8)) for name in "AZ")
    valid = torch.tensor([[True] * 4, [True, True, False, True], [False] * 4])
    expected = torch.zeros(())
    for clip in range(2):
        for layer in range(2):
            for p in range(4):
                for q in range(4):
                    if valid[clip, p] and valid[clip, q]:
                        of_queries = F.cosine_similarity(
                            embeddings[clip, p, layer], embeddings[clip, q, layer], 0
                        )
                        of_features = F.cosine_similarity(pooled[clip, p, layer], pooled[clip, q, layer], 0)
                        count = 1 if reduction == "sum" else 2 * (16, 9)[clip]  # 2 layers, pairs of frames
                        expected += (of_queries - of_features).abs() / count / 2
    assert_close(similarity_loss(embeddings, pooled, valid, reduction), expected, msg=f"seed {seed}")


def test_mean_similarity_of_different_frames_by_hand() -> None:
    """The mean over ordered pairs of all clips; the padded frame of the second clip does not count."""
    vectors = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]], [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    valid = torch.tensor([[True, True, True], [True, True, False]])
    # Ordered pairs: 2 x (0 + 1/sqrt 2 + 1/sqrt 2) and 2 x 1, 8 in all.
    assert_close(mean_similarity(vectors, valid), torch.tensor((4 / math.sqrt(2) + 2) / 8))
    assert mean_similarity(vectors[:, :1], valid[:, :1]) == 0


def test_masked_average_by_hand() -> None:
    """Two pixels, the mask at twice the size: 3/4 and 1/2 of their areas are on."""
    maps = torch.tensor([[[4.0, 8.0]], [[1.0, -1.0]]])  # (2 channels,1,2)
    mask = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0]])
    expected = torch.tensor([(4 * 0.75 + 8 * 0.5) / 2, (0.75 - 0.5) / 2])
    assert_close(masked_average(maps[None, None], mask[None, None])[0, 0], expected)


def test_the_masked_average_has_gradients_for_both_inputs() -> None:
    maps = seeded_input(1, "M", (2, 3, 2, 2)).requires_grad_()
    probability = seeded_input(1, "Y", (2, 4, 4)).sigmoid().requires_grad_()
    for gradient in torch.autograd.grad(masked_average(maps, probability).sum(), [maps, probability]):
        assert gradient.abs().min() > 0


def test_mask_losses_by_hand() -> None:
    """One frame, two layers, two pixels of which one sounds; p = 1/2 in layer 1, 3/4 and 1/4 in layer 2."""
    odds = math.log(3.0)
    logits = torch.tensor([[[[0.0, 0.0]], [[odds, -odds]]]])
    masks = torch.tensor([[[True, False]]])
    bce, dice = mask_losses(logits, masks)
    assert_close(bce, torch.tensor(math.log(2) + math.log(4 / 3)))
    assert_close(dice, torch.tensor((1 - 2 / 3) + (1 - 2.5 / 3)))


def test_class_loss_is_over_sounding_pixels() -> None:
    logits = seeded_input(1, "logits", (2, 70, 4, 4))
    masks = torch.zeros(2, 4, 4, dtype=torch.int64)
    assert sounding_class_loss(logits, masks) == 0
    masks[0, 1, 2], masks[1, 0, 0] = 70, 1
    expected = -(logits[0].log_softmax(0)[69, 1, 2] + logits[1].log_softmax(0)[0, 0, 0]) / 2
    assert_close(sounding_class_loss(logits, masks), expected)
