"""Cut-outs, resized and rotated with integers, and photographs as backgrounds."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avsbench_harness.data.errors import BadFileError
from avsbench_harness.data.pixels import load_image
from avsbench_harness.data.synth.draws import COS, SIN, Draws, Ints
from avsbench_harness.tasks import Split

#: Free photographs that are part of scikit-image (public domain or CC0), by split.
PHOTOGRAPHS: dict[Split, tuple[str, ...]] = {
    "train": ("astronaut", "brick", "coffee", "coins", "grass"),
    "val": ("gravel", "immunohistochemistry"),
    "test": ("camera", "chelsea", "moon"),
}

# Alpha from which a pixel belongs to the object.
_OPAQUE = 128


def sprite(path: Path, side: int, flip: bool, angle: int) -> Ints:
    """Return a cut-out (n,n,4) as RGB multiplied by alpha, and alpha, 0..255.

    The cut-out is resized so that its longer side has ``side`` pixels, and rotated around its centre; n is
    large enough for every angle up to 20 degrees.

    Args:
        path: the image file.
        side: pixels.
        flip: mirror it horizontally.
        angle: 4096ths of a turn.

    Raises:
        MissingDataError, BadFileError: the file is missing, no image, or has no transparency.
    """
    return _rotate(_resized(path, side, flip), angle)


def opaque(patch: Ints) -> NDArray[np.bool_]:
    """Return the mask (n,n) of the pixels of a sprite that belong to the object."""
    return patch[..., 3] >= _OPAQUE


def photograph(draws: Draws, split: Split, size: int) -> Ints:
    """Return a random crop (size,size,3) of one of the split's photographs, mirrored with probability 1/2."""
    names = PHOTOGRAPHS[split]
    pixels = _photograph(names[draws.integer(0, len(names) - 1)])
    height, width = pixels.shape[:2]
    top, left = draws.integer(0, height - size), draws.integer(0, width - size)
    crop = pixels[top : top + size, left : left + size]
    if draws.chance(1, 2):
        crop = crop[:, ::-1]
    return crop.astype(np.int64)


@lru_cache(maxsize=256)
def cut_out(path: Path) -> Image.Image:
    """A cut-out, cropped to its visible part."""
    image = load_image(path)
    if image.mode in ("RGB", "L") and "transparency" not in image.info:
        raise BadFileError(path, "has no transparency; cut the object out and save it as PNG with alpha")
    image = image.convert("RGBA")
    box = image.getchannel("A").point([0] * _OPAQUE + [255] * (256 - _OPAQUE)).getbbox()
    if box is None:
        raise BadFileError(path, "is transparent everywhere; cut the object out again")
    return image.crop(box)


@lru_cache(maxsize=256)
def _resized(path: Path, side: int, flip: bool) -> Ints:
    image = cut_out(path)
    longer = max(image.size)
    width, height = (max(1, length * side // longer) for length in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(image).astype(np.int64)
    pixels[..., :3] = (pixels[..., :3] * pixels[..., 3:] + 127) // 255
    # Room for 20 degrees: cos + sin = 1.282.
    square = np.zeros((side + 2 * (side // 6 + 2),) * 2 + (4,), dtype=np.int64)
    top, left = (len(square) - height) // 2, (len(square) - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square


def _rotate(pixels: Ints, angle: int) -> Ints:
    """Rotate (n,n,4) around the centre, with bilinear interpolation in 256ths of a pixel."""
    n = len(pixels)
    offsets = 2 * np.arange(n, dtype=np.int64) + 1 - n  # half pixels from the centre
    y, x = offsets[:, None], offsets[None, :]
    sine, cosine = int(SIN[angle]), int(COS[angle])
    u, v = ((x * cosine + y * sine) * 128 // 32767, (y * cosine - x * sine) * 128 // 32767)
    u, v = (np.clip(each + 128 * (n - 1), 0, 256 * (n - 1) - 1).astype(np.int32) for each in (u, v))
    flat, place = pixels.reshape(-1, 4).astype(np.int32), ((v >> 8) * n + (u >> 8)).ravel()
    across, down = (u & 255).reshape(-1, 1), (v & 255).reshape(-1, 1)
    upper, lower = (
        _between(flat.take(row, axis=0), flat.take(row + 1, axis=0), across) for row in (place, place + n)
    )
    rotated = (_between(upper, lower, down) + (1 << 15)) >> 16
    return rotated.reshape(pixels.shape).astype(np.int64)


def _between(one: NDArray[np.int32], two: NDArray[np.int32], part: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return 256 times the values that are ``part`` 256ths from one to the other; overwrites both."""
    two -= one
    two *= part
    one <<= 8
    one += two
    return one


@lru_cache(maxsize=16)
def _photograph(name: str) -> NDArray[np.uint8]:
    """One of scikit-image's own photographs (h,w,3)."""
    from skimage import data

    pixels: NDArray[np.uint8] = getattr(data, name)()
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
