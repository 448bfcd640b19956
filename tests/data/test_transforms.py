from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from avsbench_harness.data.transforms import Pixels, augment, saturate
from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.augment import IGNORED, Augment

SIZE = 64
FACTORS = [0.5, 0.6, 1.0, 1.5, 2.0]


def settings(**values: object) -> Augment:
    return Augment.parse(values, "here")


def drawn(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def clip(frames: int = 3, size: int = SIZE) -> Pixels:
    """White blocks that move from frame to frame; masks of class 7 and maskiges show the same blocks."""
    masks = torch.zeros(frames, size, size, dtype=torch.uint8)
    for frame in range(frames):
        start = size // 4 + 4 * frame
        masks[frame, start : start + size // 4, size // 8 : size // 2] = 7
    images = ((masks > 0) * 255).to(torch.uint8).unsqueeze(1).repeat(1, 3, 1, 1)
    return Pixels(images, masks, images.clone())


GEOMETRIES = {
    "flip": {"flip": 1.0},
    "affine": {"affine": {"rotation": 20, "scale": [0.5, 1.0], "shear": [10, 5], "translate": [0.1, 0.2]}},
    "scale": {"scale": {"factors": FACTORS}},
    "all": {"flip": 0.5, "affine": {"rotation": 20}, "scale": {"factors": FACTORS}},
}


@pytest.mark.parametrize("wanted", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("seed", range(4))
def test_frames_masks_and_maskiges_have_one_geometry(wanted: dict[str, object], seed: int) -> None:
    before = clip()
    after = augment(before, settings(**wanted), SIZE, drawn(seed))
    assert after.images.dtype == after.masks.dtype == torch.uint8
    assert set(after.masks.unique().tolist()) <= {0, 7}
    moved = any(not torch.equal(one, two) for one, two in zip(before.masks, after.masks, strict=False))
    assert moved or after.sides != before.sides or seed
    where = after.masks == 7
    assert where.any()
    for values in (after.images, after.maskige):
        assert values is not None
        assert values.shape[-2:] == after.masks.shape[-2:]
        # Resizing blends the pixels at a block's border, and nothing else.
        assert ((values[:, 0] > 127) ^ where).float().mean() < 0.02


def test_a_flip_is_exact_and_has_the_configured_probability() -> None:
    before, wanted, mirrored = clip(), settings(flip=0.25), 0
    for seed in range(400):
        after = augment(before, wanted, SIZE, drawn(seed))
        if torch.equal(after.masks, before.masks):
            assert torch.equal(after.images, before.images)
            continue
        mirrored += 1
        assert torch.equal(after.masks, before.masks.flip(-1))
        assert torch.equal(after.images, before.images.flip(-1))
    assert 70 <= mirrored <= 130  # 100 with a standard deviation of 8.7


def test_no_augmentation_is_the_identity() -> None:
    before = clip()
    assert augment(before, Augment(), SIZE, drawn(0)) is before


def test_the_same_draws_give_the_same_clip() -> None:
    wanted = settings(**GEOMETRIES["all"], jitter={"per_frame": True, "maskige": True})
    noise = torch.randint(0, 256, (3, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0))
    before = Pixels(noise.to(torch.uint8), clip().masks, noise.to(torch.uint8))
    one, two, other = (augment(before, wanted, SIZE, drawn(seed)) for seed in (5, 5, 6))
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.masks, two.masks)
    assert one.sides != other.sides or not torch.equal(one.images, other.images)


def test_scaled_frames_have_the_chosen_size_and_random_crops() -> None:
    wanted, sides, corners = settings(scale={"factors": FACTORS}), set(), set()
    ramp = torch.arange(SIZE, dtype=torch.uint8)
    place = torch.stack(
        [ramp[:, None].expand(SIZE, SIZE), ramp[None].expand(SIZE, SIZE), ramp[None] * ramp[:, None]]
    )
    before = Pixels(place[None], torch.zeros(1, SIZE, SIZE, dtype=torch.uint8))
    for seed in range(60):
        after = augment(before, wanted, SIZE, drawn(seed))
        sides.add(after.sides)
        if after.sides == (SIZE, SIZE):
            corners.add(tuple(after.images[0, :2, 0, 0].tolist()))
    assert sides == {(32, 32), (38, 38), (64, 64)}  # int(0.6 x 64) = 38, larger ones are cropped to 64
    assert len(corners) > 10
    assert len({row for row, _ in corners}) > 5
    assert len({column for _, column in corners}) > 5


def test_an_affine_map_matches_its_parameters() -> None:
    """A shift by whole pixels and a scaling about the centre, against a manual computation."""
    masks = torch.zeros(1, SIZE, SIZE, dtype=torch.uint8)
    masks[0, 16:48, 16:48] = 1
    images = (masks * 200).unsqueeze(1).repeat(1, 3, 1, 1)
    half = settings(affine={"scale": [0.5, 0.5], "fill": 9}, outside="ignore")
    after = augment(Pixels(images, masks), half, SIZE, drawn(0))
    expected = torch.full((SIZE, SIZE), IGNORED, dtype=torch.uint8)
    expected[16:48, 16:48] = 0
    expected[24:40, 24:40] = 1
    assert torch.equal(after.masks[0], expected)
    grey = torch.tensor([0, 200] + [9] * 254, dtype=torch.uint8)
    assert torch.equal(after.images[0, 0], grey[expected.long()])


def test_an_affine_map_keeps_within_its_limits() -> None:
    """The scale is measured by the area, the rotation by the longer axis of a bar."""
    bar = torch.zeros(1, 128, 128, dtype=torch.uint8)
    bar[0, 60:68, 34:94] = 1
    before = Pixels((bar * 255).unsqueeze(1).repeat(1, 3, 1, 1), bar)
    wanted = settings(affine={"rotation": 20, "scale": [0.6, 1.0]})
    angles, areas = [], []
    for seed in range(60):
        after = augment(before, wanted, 128, drawn(seed))
        rows, columns = (values.double() for values in torch.nonzero(after.masks[0], as_tuple=True))
        spread = torch.cov(torch.stack([columns, rows]))
        angles.append(float(0.5 * torch.atan2(2 * spread[0, 1], spread[0, 0] - spread[1, 1]).rad2deg()))
        areas.append(len(rows) / int(bar.sum()))
    assert max(map(abs, angles)) < 21.5
    assert min(angles) < -12
    assert max(angles) > 12
    assert 0.6**2 * 0.9 < min(areas) < 0.5
    assert 0.85 < max(areas) < 1.08


def test_saturation_is_that_of_hsv() -> None:
    colours = torch.randint(0, 256, (3, 8, 8), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    for factor in (0.5, 1.0, 1.5):
        changed = saturate(colours, factor)
        for row in range(8):
            for column in range(8):
                hue, saturation, value = colorsys.rgb_to_hsv(*(colours[:, row, column] / 255).tolist())
                wanted = colorsys.hsv_to_rgb(hue, min(1, saturation * factor), value)
                np.testing.assert_allclose(changed[:, row, column] / 255, wanted, atol=0.6 / 255)


JITTER = {"probability": 1.0, "brightness": 0, "contrast": [1, 1], "saturation": [1, 1], "hue": 0}


def colours(images: Tensor) -> Tensor:
    return images[:, :, 0, 0].int()


@pytest.mark.parametrize(
    ("part", "values", "holds"),
    [
        ("brightness", 32, lambda old, new: ((new - old).abs().max() <= 32) & ((new - old).std() < 1)),
        ("contrast", [0.5, 1.5], lambda old, new: ((new / old).std() < 0.05) & (new >= old // 2 - 1).all()),
        ("hue", 36, lambda old, new: (new.amax(1) - old.amax(1)).abs().max() <= 1),
    ],
)  # fmt: skip
def test_each_part_of_the_jitter_changes_its_property(
    part: str, values: object, holds: Callable[[Tensor, Tensor], Tensor]
) -> None:
    images = torch.tensor([90, 60, 40], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, SIZE, SIZE)
    before = Pixels(images, torch.zeros(2, SIZE, SIZE, dtype=torch.uint8), images)
    seen = set()
    for seed in range(20):
        after = augment(before, settings(jitter=JITTER | {part: values}), SIZE, drawn(seed))
        assert holds(colours(images).float(), colours(after.images).float())
        assert torch.equal(after.images[0], after.images[1])  # one draw for the clip
        assert after.maskige is images
        seen.add(tuple(colours(after.images)[0].tolist()))
    assert len(seen) > 10


def test_frames_and_maskiges_have_their_own_colours_if_configured() -> None:
    images = torch.tensor([90, 60, 40], dtype=torch.uint8).view(1, 3, 1, 1).expand(5, 3, SIZE, SIZE)
    before = Pixels(images, torch.zeros(5, SIZE, SIZE, dtype=torch.uint8), images)
    own = settings(jitter={"probability": 1.0, "per_frame": True, "maskige": True})
    after = augment(before, own, SIZE, drawn(0))
    assert after.maskige is not None
    shades = [*colours(after.images).tolist(), *colours(after.maskige).tolist()]
    assert len({tuple(shade) for shade in shades}) == 10
    alike = settings(jitter={"probability": 1.0, "maskige": True})
    after = augment(before, alike, SIZE, drawn(0))
    assert after.maskige is not None
    assert torch.equal(after.images, after.maskige)


def test_each_part_has_the_configured_probability() -> None:
    images = torch.full((1, 3, 4, 4), 100, dtype=torch.uint8)
    before = Pixels(images, torch.zeros(1, 4, 4, dtype=torch.uint8))
    rare = settings(jitter=JITTER | {"probability": 0.25, "contrast": [0.5, 0.5]})
    changed = sum(
        not torch.equal(augment(before, rare, 4, drawn(seed)).images, images) for seed in range(400)
    )
    assert 70 <= changed <= 130


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"flip": 1.5}, "'flip' is 1.5"),
        ({"scale": {"factors": []}}, "'scale.factors' is"),
        ({"affine": {"scale": [1.0, 0.5]}}, "the lower limit comes first"),
        ({"affine": {"shear": [90, 0]}}, "'affine.shear.0' is 90"),
        ({"jitter": {"hue": -1}}, "'jitter.hue' is -1"),
        ({"rotate": 3}, "Unknown key 'rotate' in here"),
    ],
)
def test_invalid_augmentations_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        settings(**values)


@pytest.mark.parametrize("factor", FACTORS)
def test_resizing_is_that_of_pillow(factor: float) -> None:
    """Frames as the published code resizes them, to within rounding; masks take the nearest pixel."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (1, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    rows = torch.arange(SIZE, dtype=torch.uint8)[:, None].repeat(1, SIZE)
    before = Pixels(images, rows[None], rows.repeat(1, 3, 1, 1))
    after = augment(before, settings(scale={"factors": [factor]}), 2 * SIZE, drawn(0))
    side = int(factor * SIZE)
    picture = Image.fromarray(images[0].permute(1, 2, 0).numpy()).resize(
        (side, side), Image.Resampling.BILINEAR
    )
    difference = after.images[0].permute(1, 2, 0).numpy().astype(int) - np.asarray(picture)
    assert abs(difference).max() <= 1
    centres = (np.arange(side) + 0.5) * SIZE / side  # a pixel's place in the picture before
    nearest = after.masks[0].numpy() + 0.5
    assert abs(nearest - centres[:, None]).max() <= 0.5 + 1e-6
    assert after.maskige is not None
    assert torch.equal(after.maskige[0, 0], after.masks[0])
