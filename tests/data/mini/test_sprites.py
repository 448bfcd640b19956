"""Cut-outs against Pillow's transformations, and photographs."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avsbench_harness.data.errors import BadFileError
from avsbench_harness.data.mini import sprites
from avsbench_harness.data.mini.media import FOLDER
from avsbench_harness.data.synth.draws import TURN, Draws
from avsbench_harness.errors import MissingDataError
from avsbench_harness.tasks import SPLITS

DOG = FOLDER / "pictures/dog/noto_dog.png"


def pillow(side: int, degrees: float) -> np.ndarray:
    """The resized and rotated dog (n,n,4) by Pillow, premultiplied, in the frame of a sprite."""
    image = Image.open(DOG)
    image = image.crop(image.getchannel("A").point([0] * 128 + [255] * 128).getbbox())
    longer = max(image.size)
    image = image.resize(
        (image.width * side // longer, image.height * side // longer), Image.Resampling.BILINEAR
    )
    n = side + 2 * (side // 6 + 2)
    square = Image.new("RGBA", (n, n))
    square.paste(image, ((n - image.width) // 2, (n - image.height) // 2))
    square = square.convert("RGBa").rotate(degrees, Image.Resampling.BILINEAR)
    return np.frombuffer(square.tobytes(), np.uint8).reshape(n, n, 4).astype(int)


@pytest.mark.parametrize(("angle", "degrees"), [(0, 0.0), (205, -18.0), (TURN - 205, 18.0), (100, -8.79)])
def test_sprites_are_those_of_pillow(angle: int, degrees: float) -> None:
    own, other = sprites.sprite(DOG, 90, False, angle), pillow(90, degrees)
    assert own.shape == other.shape
    assert own.min() >= 0
    assert own.max() <= 255
    difference = np.abs(own - other)
    assert difference.mean() < 0.8
    assert np.percentile(difference, 99) <= 12
    assert (difference <= 2).all() or angle


def test_flip_mirrors() -> None:
    plain, mirrored = (sprites.sprite(DOG, 64, flip, 0) for flip in (False, True))
    middle = len(plain) // 2
    assert (plain != mirrored).any()
    visible = [(each[..., 3] >= 128).any(axis=0).nonzero()[0] for each in (plain, mirrored)]
    assert visible[0].min() + visible[1].max() == pytest.approx(2 * middle, abs=2)


@pytest.mark.parametrize("angle", [0, 130, TURN - 205])
def test_the_silhouette_is_half_of_alpha_or_more(angle: int) -> None:
    mask = sprites.silhouette(DOG, 70, True, angle)
    np.testing.assert_array_equal(mask, sprites.sprite(DOG, 70, True, angle)[..., 3] >= 128)
    assert 0.2 < mask.mean() < 0.6


@pytest.mark.parametrize("side", [16, 61, 112])
def test_the_longer_side_of_the_visible_part_is_as_asked(side: int) -> None:
    mask = sprites.silhouette(DOG, side, False, 0)
    height, width = (np.ptp(np.nonzero(mask)[axis]) + 1 for axis in (0, 1))
    assert max(height, width) == pytest.approx(side, abs=2)


def test_pictures_without_transparency_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "opaque.png")
    with pytest.raises(BadFileError, match="no transparency"):
        sprites.sprite(tmp_path / "opaque.png", 16, False, 0)
    Image.new("RGBA", (20, 20)).save(tmp_path / "empty.png")
    with pytest.raises(BadFileError, match="transparent everywhere"):
        sprites.sprite(tmp_path / "empty.png", 16, False, 0)
    with pytest.raises(MissingDataError):
        sprites.sprite(tmp_path / "missing.png", 16, False, 0)


def test_no_photograph_is_in_two_splits_and_all_are_large_enough() -> None:
    names = [name for split in SPLITS for name in sprites.PHOTOGRAPHS[split]]
    assert len(names) == len(set(names))
    for split in SPLITS:
        draws = Draws(1, split)
        for _ in range(8):
            assert sprites.photograph(draws, split, 257).shape == (257, 257, 3)


#: CRC-32 of the photographs as RGB. Another version of scikit-image must have the same ones.
CHECKSUMS = {
    "astronaut": 0xFDCAA55F, "brick": 0xE59DF399, "camera": 0xDAE3FC0B, "chelsea": 0x0F829D59,
    "coffee": 0xACF41373, "coins": 0x3AE7E8A7, "grass": 0x0E9030A1, "gravel": 0x555FBD25,
    "immunohistochemistry": 0x9CB3A458, "moon": 0xBDA19A91,
}  # fmt: skip


def test_photographs_are_those_of_the_benchmark() -> None:
    from skimage import data

    for name, expected in CHECKSUMS.items():
        pixels = getattr(data, name)()
        rgb = pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=2)
        assert zlib.crc32(np.ascontiguousarray(rgb).tobytes()) == expected, name
    assert set(CHECKSUMS) == {name for split in SPLITS for name in sprites.PHOTOGRAPHS[split]}
