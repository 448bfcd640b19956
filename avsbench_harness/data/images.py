"""Decoded frames and masks of a clip, at the size of the network input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avsbench_harness.data.clip import Clip
from avsbench_harness.data.masks import read_object_mask, read_semantic_mask, resize_mask
from avsbench_harness.data.pixels import Size, fit_image, load_image, load_plain
from avsbench_harness.recipe.schema import Fit
from avsbench_harness.tasks import MASK_SIZE, Task


def read_frame(path: Path, size: Size, fit: Fit = "squeeze") -> NDArray[np.uint8]:
    """Return a frame (h,w,3) as uint8 RGB, resized by Pillow's BILINEAR as in the published loaders.

    Args:
        path: the image file, of any mode.
        size: side of the square result, or its (w,h), pixels.
        fit: ``squeeze`` the whole frame, or ``crop`` the centre after resizing the shorter side to ``size``.

    Raises:
        MissingDataError, UnreadableImageError: as in :func:`~avsbench_harness.data.pixels.load_image`.
    """
    plain = load_plain(path)
    if plain is not None and plain.shape == (*_sides(size), 3):  # no resizing needed
        return plain
    image = load_image(path) if plain is None else Image.fromarray(plain)
    return fit_frame(image, size, fit)


def fit_frame(image: Image.Image, size: Size, fit: Fit = "squeeze") -> NDArray[np.uint8]:
    """Return a decoded frame as :func:`read_frame` does."""
    if image.mode != "RGB":
        image = image.convert("RGB")
    return np.asarray(fit_image(image, size, fit, Image.Resampling.BILINEAR))


def read_clip_masks(
    clip: Clip, task: Task, size: Size = MASK_SIZE, fit: Fit = "squeeze"
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the ground truth of a clip's t valid frames.

    Returns:
        masks: (t,h,w) uint8 class indices (s4 and ms3: 1 for sounding objects); zeros in frames without.
        annotated: (t,) bool, frames with ground truth.
    """
    read = read_semantic_mask if task.semantic else read_object_mask
    masks = np.zeros((len(clip.masks), *_sides(size)), dtype=np.uint8)
    for frame, path in enumerate(clip.masks):
        if path is not None:
            masks[frame] = resize_mask(read(path), size, fit)
    return masks, np.array([path is not None for path in clip.masks], dtype=np.bool_)


def _sides(size: Size) -> tuple[int, int]:
    """(h,w) of a size."""
    return (size, size) if isinstance(size, int) else (size[1], size[0])
