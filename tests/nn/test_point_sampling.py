from __future__ import annotations

import pytest
import torch

from avsbench_harness.nn.point_sampling import sample_points, uncertain_points


def test_samples_at_pixel_centres_are_the_pixels() -> None:
    maps = torch.arange(24.0).view(1, 2, 3, 4)
    centres = torch.tensor([[(x + 0.5) / 4, (y + 0.5) / 3] for y in range(3) for x in range(4)])
    torch.testing.assert_close(sample_points(maps, centres[None]), maps.flatten(2))


def test_samples_between_pixels_are_interpolated_and_outside_zero() -> None:
    maps = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
    points = torch.tensor([[[0.5, 0.25], [0.5, 0.5], [0.0, 0.25], [0.0, 0.0], [-1.0, 0.5]]])
    expected = torch.tensor(
        [[[2.0, 4.0, 0.5, 0.25, 0.0]]]
    )  # at a border half of the interpolation is outside
    torch.testing.assert_close(sample_points(maps, points), expected)


def test_every_map_has_its_own_points() -> None:
    maps, points = torch.rand(3, 2, 5, 6), torch.rand(3, 7, 2)
    together = sample_points(maps, points)
    for index in range(3):
        part = slice(index, index + 1)
        torch.testing.assert_close(sample_points(maps[part], points[part]), together[part])


def test_most_points_are_where_the_mask_is_uncertain() -> None:
    logits = torch.full((2, 20, 20), 9.0)
    logits[:, :, 8:12] = 0.0  # a fifth of the map
    torch.manual_seed(0)
    points = uncertain_points(logits, 400)
    assert points.shape == (2, 400, 2)
    assert points.min() >= 0
    assert points.max() < 1
    undecided = (sample_points(logits[:, None], points)[:, 0] < 5).float().mean(dim=1)
    # About 240 of 1200 candidates are in the band and 60 beside it; then a fifth of the 100 new ones.
    assert (undecided > 0.6).all()
    uniform = uncertain_points(logits, 400, importance=0.0)
    assert (sample_points(logits[:, None], uniform)[:, 0] < 5).float().mean() < 0.4


def test_the_least_certain_candidates_of_both_signs_are_kept() -> None:
    logits = torch.linspace(-4, 4, 64).expand(1, 64, 64)
    torch.manual_seed(1)
    kept = uncertain_points(logits, 50, oversample=4.0, importance=1.0)
    torch.manual_seed(1)
    candidates = torch.rand(1, 200, 2)
    certainty = sample_points(logits[:, None], candidates)[0, 0].abs()
    expected = candidates[0, certainty.argsort()[:50]]
    assert {tuple(point) for point in kept[0].tolist()} == {tuple(point) for point in expected.tolist()}


def test_no_masks_give_no_points() -> None:
    assert uncertain_points(torch.zeros(0, 8, 8), 10).shape == (0, 10, 2)


@pytest.mark.parametrize("settings", [{"oversample": 0.5}, {"importance": 1.5}, {"importance": -0.1}])
def test_invalid_shares_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        uncertain_points(torch.zeros(1, 8, 8), 10, **settings)
