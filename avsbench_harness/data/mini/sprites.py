"""Cut-outs, resized and rotated with integers, and photographs as backgrounds."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avsbench_harness.data.avsbench.writer import Bytes
from avsbench_harness.data.errors import BadFileError
from avsbench_harness.data.pixels import load_image
from avsbench_harness.data.synth.draws import COS, SIN, Draws
from avsbench_harness.tasks import Split

#: Free photographs that are part of scikit-image (public domain or CC0), by split.
PHOTOGRAPHS: dict[Split, tuple[str, ...]] = {
    "train": ("astronaut", "brick", "coffee", "coins", "grass"),
    "val": ("gravel", "immunohistochemistry"),
    "test": ("camera", "chelsea", "moon"),
}

# Alpha from which a pixel belongs to the object.
_OPAQUE = 128


def sprite(path: Path, side: int, flip: bool, angle: int) -> Bytes:
    """Return a cut-out (n,n,4) as RGB multiplied by alpha, and alpha.

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
    return np.moveaxis(_rotate(_resized(path, side, flip), angle), 0, -1)


def silhouette(path: Path, side: int, flip: bool, angle: int) -> NDArray[np.bool_]:
    """Return the mask (n,n) of the pixels of a :func:`sprite` that belong to the object.

    Only alpha is rotated, which takes a quarter of the time.
    """
    visible: NDArray[np.bool_] = _rotate(_resized(path, side, flip)[3:], angle)[0] >= _OPAQUE
    return visible


def photograph(draws: Draws, split: Split, size: int) -> Bytes:
    """Return a random crop (size,size,3) of one of the split's photographs, mirrored with probability 1/2."""
    names = PHOTOGRAPHS[split]
    pixels = _photograph(names[draws.integer(0, len(names) - 1)])
    height, width = pixels.shape[:2]
    top, left = draws.integer(0, height - size), draws.integer(0, width - size)
    crop = pixels[top : top + size, left : left + size]
    return crop[:, ::-1] if draws.chance(1, 2) else crop


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
def _resized(path: Path, side: int, flip: bool) -> Bytes:
    """A cut-out before its rotation (4,n,n)."""
    image = cut_out(path)
    longer = max(image.size)
    width, height = (max(1, length * side // longer) for length in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(image).transpose(2, 0, 1)
    # Room for 20 degrees: cos + sin = 1.282.
    square = np.zeros((4,) + (side + 2 * (side // 6 + 2),) * 2, dtype=np.uint8)
    top, left = (square.shape[1] - height) // 2, (square.shape[1] - width) // 2
    place = square[:, top : top + height, left : left + width]
    place[:3] = (pixels[:3].astype(np.uint16) * pixels[3] + 127) // 255
    place[3] = pixels[3]
    return square


def _rotate(pixels: Bytes, angle: int) -> Bytes:
    """Rotate (C,n,n) around the centre, with bilinear interpolation in 256ths of a pixel."""
    channels, n = pixels.shape[:2]
    # 2 * n * 32767 * 128 has to fit.
    offsets = 2 * np.arange(n, dtype=np.int32 if n <= 256 else np.int64) + 1 - n  # half pixels
    y, x = offsets[:, None], offsets[None, :]
    sine, cosine = int(SIN[angle]), int(COS[angle])
    u, v = ((x * cosine + y * sine) * 128 // 32767, (y * cosine - x * sine) * 128 // 32767)
    u, v = (np.clip(each + 128 * (n - 1), 0, 256 * (n - 1) - 1).ravel() for each in (u, v))
    flat, place = pixels.reshape(channels, -1), ((v >> 8) * n + (u >> 8)).astype(np.intp)
    across, down = (u & 255).astype(np.uint16), (v & 255).astype(np.uint32)
    upper, lower = (
        _between(flat.take(row, axis=1), flat.take(row + 1, axis=1), across) for row in (place, place + n)
    )
    rotated: Bytes = ((upper * (256 - down) + lower * down + (1 << 15)) >> 16).astype(np.uint8)
    return rotated.reshape(pixels.shape)


def _between(one: Bytes, two: Bytes, part: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Return 256 times the values that are ``part`` 256ths from one to the other."""
    mixed: NDArray[np.uint16] = one * (256 - part) + two * part  # at most 255 * 256
    return mixed


@lru_cache(maxsize=16)
def _photograph(name: str) -> Bytes:
    """One of scikit-image's own photographs (h,w,3)."""
    from skimage import data

    pixels: Bytes = getattr(data, name)()
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
