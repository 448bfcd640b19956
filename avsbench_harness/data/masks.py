"""Ground-truth masks: decoding, colours and resizing.

The published loaders read masks by conversions that silently accept wrong files (``convert('1')`` dithers
grey, ``convert('P')`` makes it a soft target, ``// 255`` drops 0/1 masks, a colour outside the table becomes
background). Here every pixel must have the value of exactly one class, else reading raises an error with the
file's name.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avsbench_harness.data.errors import MaskValueError
from avsbench_harness.data.pixels import Size, fit_image, load_image
from avsbench_harness.recipe.schema import Fit
from avsbench_harness.tasks import CLASSES

Mask = NDArray[np.uint8]


class ZeroOneMaskWarning(UserWarning):
    """An object mask has the values 0/1 instead of 0/255, which other codes read as empty."""


def _voc_palette(classes: int) -> Mask:
    """PASCAL VOC's palette: the bits of each octal digit are bits of red, green, blue, high bits first."""
    index = np.arange(classes)
    channels = np.zeros((classes, 3), dtype=np.uint8)
    for digit in range(3):  # classes below 512 have three octal digits
        for channel in range(3):
            bit = (index >> (3 * digit + channel)) & 1
            channels[:, channel] |= (bit << (7 - digit)).astype(np.uint8)
    return channels


#: (71,3) uint8 RGB colour of each class of AVSBench-semantic; background is black.
PALETTE: Mask = _voc_palette(len(CLASSES))
PALETTE.flags.writeable = False

_NO_CLASS = 255
_SHOWN = 3  # wrong colours listed in a message


def _top_bits(rgb: Mask) -> NDArray[np.uint16]:
    """A 9-bit key of each colour: the three high bits of its channels, the only ones the palette uses."""
    high = (rgb >> 5).astype(np.uint16)
    return np.asarray(high[..., 0] << 6 | high[..., 1] << 3 | high[..., 2], dtype=np.uint16)


_CLASS_OF_KEY: Mask = np.full(512, _NO_CLASS, dtype=np.uint8)
_CLASS_OF_KEY[_top_bits(PALETTE)] = np.arange(len(PALETTE))


def read_object_mask(path: Path) -> Mask:
    """Return the mask (H,W) of the sounding objects of an S4 or MS3 frame, uint8 in {0, 1}.

    Black is background and white is object in the modes 1, L, RGB and P (by the palette's colours). In files
    with transparency (RGBA, LA, tRNS), the mask is in the colours or, if all pixels have the same colour, in
    the alpha channel. Palette files of other colours are read by index, 0 and 255, or 0 and 1 as in DAVIS.
    Masks of 0 and 1 are accepted with a :class:`ZeroOneMaskWarning`; a mask of zeros has no object.

    Raises:
        MaskValueError: there is another value (the message names the file, the value and its count), or
            colours and transparency contradict each other.
        MissingDataError, UnreadableImageError: as in :func:`~avsbench_harness.data.pixels.load_image`.
    """
    mask, zero_one = decode_object_mask(load_image(path), path)
    if zero_one:
        # Without the file's name, so that Python shows the warning once per data set.
        warnings.warn(
            "Object masks with the values 0 and 1 are read as if they were 0 and 255; rewrite them with 255,"
            " because other codes read them as empty.",
            ZeroOneMaskWarning,
            stacklevel=2,
        )
    return mask


def decode_object_mask(image: Image.Image, path: Path) -> tuple[Mask, bool]:
    """Return the mask of :func:`read_object_mask` and whether its values are 0/1; ``path`` is for errors."""
    values = _opaque(_object_values(image, path), image, path)
    wrong = (values != 0) & (values != 255)
    if not wrong.any():
        return (values == 255).astype(np.uint8), False
    if (values <= 1).all():
        return values.astype(np.uint8), True
    raise _refusal(path, "value", values[wrong, None], "an object mask has only 0 and 255")


def _object_values(image: Image.Image, path: Path) -> NDArray[np.integer]:
    """The grey values (H,W) of an object mask, without its transparency."""
    pixels = np.asarray(image)
    if image.mode == "P":
        colours = _palette_of(image)
        used = colours[np.flatnonzero(np.bincount(pixels.ravel(), minlength=256))]
        black_or_white = (used == used[:, :1]).all() and np.isin(used, (0, 255)).all()
        return colours[pixels, 0] if black_or_white else pixels
    if image.mode in ("RGB", "RGBA"):
        coloured = (pixels[..., :3] != pixels[..., :1]).any(axis=2)
        if coloured.any():
            raise _refusal(path, "colour", pixels[coloured, :3], "an object mask is black and white")
        return pixels[..., 0]
    return _single_channel(image, path)


def _opaque(values: NDArray[np.integer], image: Image.Image, path: Path) -> NDArray[np.integer]:
    """The grey values of an object mask (H,W), from the alpha channel if the mask is held there.

    That is the case if all pixels have one colour, and the alpha channel varies. Transparent black pixels
    have no object either way.

    Raises:
        MaskValueError: colours and alpha contradict each other.
    """
    alpha = _alpha_of(image)
    if alpha is None:
        return values
    if (values == values.flat[0]).all() and (alpha != alpha.flat[0]).any():
        return alpha
    _check_transparency(values, alpha, path)
    return values


def _check_transparency(values: NDArray[np.integer], alpha: Mask, path: Path) -> None:
    """Refuse pixels that are partly transparent, or transparent and not background."""
    if np.isin(alpha, (0, 255)).all() and not values[alpha == 0].any():
        return
    raise MaskValueError(
        path,
        f"has {np.count_nonzero(alpha != 255)} transparent pixels that contradict its colours; save the mask "
        "without an alpha channel",
    )


def _alpha_of(image: Image.Image) -> Mask | None:
    """The alpha channel (H,W) of an image, ``None`` if it is opaque."""
    if image.mode not in ("RGBA", "LA"):
        if "transparency" not in image.info or image.mode not in ("1", "L", "P", "RGB"):
            return None
        image = image.convert("RGBA")
    alpha = np.asarray(image)[..., -1]
    return None if (alpha == 255).all() else alpha


def read_semantic_mask(path: Path) -> Mask:
    """Return the class indices (H,W) of an AVSS frame, uint8, 0 background.

    Reads ``labels_rgb`` files (colours of :data:`PALETTE`) and ``labels_semantic`` files (one channel of
    class indices). A palette file is read by its colours, or by index if its palette is a plain grey ramp.

    Raises:
        MaskValueError: a colour or an index belongs to no class; the message names the file, the colours and
            their counts. The published loaders turn such pixels into background.
        MissingDataError, UnreadableImageError: as in :func:`~avsbench_harness.data.pixels.load_image`.
    """
    return decode_semantic_mask(load_image(path), path)


def decode_semantic_mask(image: Image.Image, path: Path) -> Mask:
    """Return the mask of :func:`read_semantic_mask`; ``path`` is for errors."""
    pixels = np.asarray(image)
    colours = _palette_of(image) if image.mode == "P" else None
    if image.mode in ("RGB", "RGBA"):
        labels = _classes_of(pixels)
    elif colours is not None and not _is_grey_ramp(colours):
        labels = _classes_of(colours)[pixels]
    else:
        values = _single_channel(image, path)
        wrong = (values < 0) | (values >= len(CLASSES))
        if wrong.any():
            raise _refusal(path, "value", values[wrong, None], f"classes are 0 to {len(CLASSES) - 1}")
        return _labelled(values.astype(np.uint8), image, path)
    wrong = labels == _NO_CLASS
    if wrong.any():
        seen = pixels[wrong, :3] if colours is None else colours[pixels[wrong]]
        raise _refusal(path, "colour", seen, "that is not in AVSBench-semantic's palette")
    return _labelled(labels, image, path)


def _labelled(labels: Mask, image: Image.Image, path: Path) -> Mask:
    """The labels of a semantic mask, after checking that they are not held in its alpha channel."""
    alpha = _alpha_of(image)
    if alpha is not None:
        if not labels.any() and alpha.any():
            raise MaskValueError(path, "has transparency but no class; save the labels without alpha channel")
        _check_transparency(labels, alpha, path)
    return labels


def swap_channels(label: int) -> int:
    """Return the class that is read instead of ``label`` if red and blue are swapped; -1 if none."""
    swapped = int(_classes_of(PALETTE[None, label, ::-1])[0])
    return swapped if swapped != _NO_CLASS else -1


def colourise(labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Return the RGB colours (...,3), uint8, of class indices (...) in :data:`PALETTE`."""
    return np.asarray(PALETTE[labels])


def resize_mask(mask: Mask, size: Size, fit: Fit = "squeeze") -> Mask:
    """Resize a mask (H,W) by Pillow's NEAREST, as the published loaders do."""
    if fit == "squeeze" and mask.shape == ((size, size) if isinstance(size, int) else size[::-1]):
        return mask
    return np.asarray(fit_image(Image.fromarray(mask), size, fit, Image.Resampling.NEAREST))


def _classes_of(rgb: Mask) -> Mask:
    """The class of each colour (...,3); ``_NO_CLASS`` for colours outside the palette."""
    classes = _CLASS_OF_KEY.take(_top_bits(rgb))
    low_bits = (rgb[..., 0] | rgb[..., 1] | rgb[..., 2]) & 0b11111
    classes[low_bits != 0] = _NO_CLASS
    return classes


def _palette_of(image: Image.Image) -> Mask:
    """(256,3) colours of a palette image; entries that are not stored are black."""
    stored = np.asarray(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[: len(stored)] = stored
    return colours


def _is_grey_ramp(colours: Mask) -> bool:
    """Whether entry i has the grey value i, for all entries stored in the file."""
    ramp = (colours == np.arange(256)[:, None]).all(axis=1)
    return bool(ramp.all() or not colours[np.argmin(ramp) :].any())


def _single_channel(image: Image.Image, path: Path) -> NDArray[np.integer]:
    """The values of a mask of one channel; white in a 1-bit file is 255, as in Pillow."""
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8) * np.uint8(255)
    pixels = np.asarray(image)
    if image.mode == "LA":
        return pixels[..., 0]
    if pixels.ndim != 2 or pixels.dtype.kind not in "ui":
        raise MaskValueError(path, f"has the image mode {image.mode}; a mask is an 8-bit PNG")
    return pixels


def _refusal(path: Path, what: str, pixels: NDArray[np.integer], rule: str) -> MaskValueError:
    """The error for wrong pixels (n, channels), with the most frequent ones and their counts."""
    found, counts = np.unique(pixels, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shown = ", ".join(
        f"{tuple(found[i].tolist()) if found.shape[1] > 1 else found[i, 0]} ({counts[i]} px)"
        for i in order[:_SHOWN]
    )
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return MaskValueError(path, f"has the {what} {shown}{more}, but {rule}")
