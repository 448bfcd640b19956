"""From image files to arrays of the wanted size: opening with clear errors, and the geometries.

The published loaders bring pictures to a square in two ways: ``squeeze`` (the whole picture, aspect not
kept; S4 and MS3, AVSS in val and test) and ``crop`` (short side to the size, then the centre; AVSS in train).
A third way keeps the aspect and all of the picture: its long side goes to the size, see :func:`content_size`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from avsbench_harness.data.errors import UnreadableImageError
from avsbench_harness.errors import MissingDataError

Fit = Literal["squeeze", "crop"]

#: Side of a square in pixels, or (width, height).
Size = int | tuple[int, int]

# The start of a PNG file: signature, then length, name and contents of its header.
_PNG = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">16xIIBBBBB")
_GREY, _RGB = 0, 2

# Pictures with more pixels are no frames of a video.
_MOST_PIXELS = 2**26

# What Pillow raises on damaged files; all of them mean that the file, not the program, is wrong.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def load_image(path: Path) -> Image.Image:
    """Open and decode an image in the file's own mode.

    Raises:
        MissingDataError: there is no such file.
        UnreadableImageError: it is not an image, or is cut short or damaged.
    """
    plain = load_plain(path)
    if plain is not None:
        return Image.fromarray(plain)
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingDataError(
            f"There is no file {path}. `avsb data check` lists all that is missing."
        ) from error
    except _DAMAGE as error:
        reason = f"cannot be read as an image ({_reason(error)}); fetch it again"
        raise UnreadableImageError(path, reason) from error


def load_plain(path: Path) -> NDArray[np.uint8] | None:
    """A PNG file of 8-bit colours (h,w,3) or greys (h,w), decoded the fast way; ``None`` leaves it to Pillow.

    What needs thought (palettes, transparency, other depths, huge, damaged or missing files) is Pillow's, so
    that results do not depend on which of the two is there.
    """
    decode = _fast_decoder()
    if decode is None or path.suffix.lower() != ".png":
        return None
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
            content = header + file.read() if _is_plain(header) else b""
    except OSError:
        return None
    if not content or b"tRNS" in content[: content.find(b"IDAT")]:
        return None
    try:
        return decode(content)
    except Exception:  # whatever it finds amiss, Pillow says it
        return None


def _is_plain(header: bytes) -> bool:
    """Whether a file starts as a PNG of 8-bit colours or greys, row by row and not too large."""
    if header[:8] != _PNG or header[12:16] != b"IHDR" or len(header) < _HEADER.size:
        return False
    width, height, depth, colours, _, _, interlaced = _HEADER.unpack(header)
    return depth == 8 and colours in (_GREY, _RGB) and not interlaced and width * height <= _MOST_PIXELS


@cache
def _fast_decoder() -> Callable[[bytes], NDArray[np.uint8]] | None:
    """The decoder of the extra ``fast``, where it is installed: twice as fast as Pillow's."""
    try:
        from imagecodecs import png_decode
    except ImportError:
        return None
    return png_decode


def _reason(error: Exception) -> str:
    """Why Pillow failed, without the path that its messages may repeat."""
    if isinstance(error, UnidentifiedImageError):
        return "of no known format, or cut short"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def crop_size(width: int, height: int, size: int) -> tuple[int, int]:
    """(width, height) after the short side went to ``size``; the long side is rounded down, as published."""
    if width > height:
        return width * size // height, size
    return size, height * size // width


def crop_box(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """The centre square (left, upper, right, lower) of a ``width`` x ``height`` picture.

    Half a pixel goes to the even neighbour (Python's ``round``), as in the published loaders.
    """
    left, upper = round((width - size) / 2), round((height - size) / 2)
    return left, upper, left + size, upper + size


def content_size(width: int, height: int, size: int) -> tuple[int, int]:
    """(width, height) of a picture whose long side went to ``size``, its aspect kept to the pixel."""
    long = max(width, height)
    return max(1, round(width * size / long)), max(1, round(height * size / long))


def fit_image(image: Image.Image, size: Size, fit: Fit, resample: Image.Resampling) -> Image.Image:
    """Bring an image to ``size`` pixels; only ``squeeze`` knows others than squares."""
    if fit == "squeeze":
        return image.resize((size, size) if isinstance(size, int) else size, resample)
    if not isinstance(size, int):
        raise ValueError(f"A {fit} is square, so its size is one number, not {size}.")
    wide = image.resize(crop_size(image.width, image.height, size), resample)
    return wide.crop(crop_box(wide.width, wide.height, size))
