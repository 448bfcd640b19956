"""Image files: decoding with clear errors, and resizing.

The published loaders resize pictures to a square in two ways: ``squeeze`` (the whole picture, aspect not
kept; S4 and MS3, AVSS in val and test) and ``crop`` (shorter side to the size, then the centre; AVSS in
train). A third way, ``pad``, keeps the aspect and the whole picture, see :mod:`.padding`.

Resizing stays with Pillow: torchvision's resize of tensors rounds differently from the published pixels.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from avsbench_harness.data.errors import UnreadableImageError
from avsbench_harness.errors import MissingDataError
from avsbench_harness.recipe.schema import Fit

#: Side of a square in pixels, or (width, height).
Size = int | tuple[int, int]

# The start of a PNG file: signature, then length, name and contents of its header.
_PNG = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">16xIIBBBBB")
_GREY, _RGB = 0, 2

# Pictures with more pixels are not decoded by the fast decoder.
_MOST_PIXELS = 2**26

# Exceptions that Pillow raises on damaged files.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def load_image(path: Path) -> Image.Image:
    """Open and decode an image in the file's own mode.

    Raises:
        MissingDataError: there is no such file.
        UnreadableImageError: it is not an image, or is truncated or damaged.
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
            f"There is no file {path}. `avsb data check` lists everything that is missing."
        ) from error
    except _DAMAGE as error:
        reason = f"cannot be read as an image ({_reason(error)}); fetch it again"
        raise UnreadableImageError(path, reason) from error


def load_plain(path: Path) -> NDArray[np.uint8] | None:
    """Decode a PNG file of 8-bit RGB (h,w,3) or grey (h,w) with the fast decoder, if it is installed.

    Returns ``None`` for all other files (palettes, transparency, other bit depths, huge, damaged or missing
    files). Pillow decodes these, so that results do not depend on the decoders that are installed.
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
    except Exception:  # Pillow reports the error
        return None


def _is_plain(header: bytes) -> bool:
    """Whether a file's first bytes are those of a PNG of 8-bit RGB or grey, not interlaced, not huge."""
    if header[:8] != _PNG or header[12:16] != b"IHDR" or len(header) < _HEADER.size:
        return False
    width, height, depth, colours, _, _, interlaced = _HEADER.unpack(header)
    return depth == 8 and colours in (_GREY, _RGB) and not interlaced and width * height <= _MOST_PIXELS


@cache
def _fast_decoder() -> Callable[[bytes], NDArray[np.uint8]] | None:
    """The PNG decoder of the extra ``fast`` if it is installed; twice as fast as Pillow's."""
    try:
        from imagecodecs import png_decode
    except ImportError:
        return None
    return png_decode


def _reason(error: Exception) -> str:
    """The reason for Pillow's failure, without the path that its messages may repeat."""
    if isinstance(error, UnidentifiedImageError):
        return "of no known format, or truncated"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def crop_size(width: int, height: int, size: int) -> tuple[int, int]:
    """Return (width, height) with the shorter side ``size``; the longer one is rounded down, as published."""
    if width > height:
        return width * size // height, size
    return size, height * size // width


def crop_box(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """Return the centre square (left, upper, right, lower) of a ``width`` x ``height`` picture.

    Half pixels are rounded to even (Python's ``round``), as in the published loaders.
    """
    left, upper = round((width - size) / 2), round((height - size) / 2)
    return left, upper, left + size, upper + size


def fit_image(image: Image.Image, size: Size, fit: Fit, resample: Image.Resampling) -> Image.Image:
    """Resize an image by ``squeeze``, or by ``crop`` to a square.

    Raises:
        ValueError: any other combination; for ``pad``, squeeze the image to its content size.
    """
    if fit == "squeeze":
        return image.resize((size, size) if isinstance(size, int) else size, resample)
    if fit != "crop" or not isinstance(size, int):
        raise ValueError(f"{fit} to {size} pixels is not supported; only crop to a square and squeeze are.")
    resized = image.resize(crop_size(image.width, image.height, size), resample)
    return resized.crop(crop_box(resized.width, resized.height, size))
