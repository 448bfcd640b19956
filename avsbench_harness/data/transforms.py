"""Augmentation of one clip; ``recipe.augment`` defines the options.

Geometry is that of torchvision's ``v2.functional``. Its transform classes are not used, because they draw
from torch's global random state, and ``tv_tensors.Mask`` is not, because it selects another kind of nearest.
The jitter is detectron2's, which differs from torchvision's ``ColorJitter``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from avsbench_harness.recipe.augment import Affine, Augment, Jitter, Scale

_MODES = {"nearest": InterpolationMode.NEAREST_EXACT, "bilinear": InterpolationMode.BILINEAR}


@dataclass(frozen=True)
class Pixels:
    """The pixels of a clip before normalisation.

    Attributes:
        images: (t,3,h,w) uint8 RGB.
        masks: (t,h,w) uint8 class indices.
        maskige: (t,3,h,w) uint8 RGB, for methods that take maskiges.
        flipped: whether the clip was flipped horizontally.
    """

    images: Tensor
    masks: Tensor
    maskige: Tensor | None = None
    flipped: bool = False

    @property
    def sides(self) -> tuple[int, int]:
        """(h, w)."""
        return self.masks.shape[-2], self.masks.shape[-1]

    def change(
        self,
        images: Callable[[Tensor], Tensor],
        masks: Callable[[Tensor], Tensor],
        maskige: Callable[[Tensor], Tensor] | None = None,
    ) -> Pixels:
        """Apply one function to each part; maskiges default to the function of the images."""
        changed = None if self.maskige is None else (maskige or images)(self.maskige)
        return replace(
            self, images=images(self.images), masks=masks(self.masks.unsqueeze(1)).squeeze(1), maskige=changed
        )


def augment(pixels: Pixels, wanted: Augment, size: int, draw: np.random.Generator) -> Pixels:
    """Return the augmented clip, cropped to at most ``size``; the caller pads shorter sides.

    Args:
        pixels: the clip.
        wanted: the augmentation of the recipe.
        size: side of the network input, pixels.
        draw: the random generator; the same state gives the same clip.
    """
    if wanted.affine is not None:
        pixels = _affine(pixels, wanted.affine, wanted.outside_class, draw)
    if wanted.scale is not None:
        pixels = _crop(_scale(pixels, wanted.scale, draw), size, draw)
    if wanted.jitter is not None:
        pixels = _jitter(pixels, wanted.jitter, draw)
    if wanted.flip and draw.random() < wanted.flip:
        pixels = flip(pixels)
    return pixels


def flip(pixels: Pixels) -> Pixels:
    """Return the horizontally flipped clip."""
    changed = pixels.change(functional.horizontal_flip, functional.horizontal_flip)
    return replace(changed, flipped=not pixels.flipped)


def _affine(pixels: Pixels, wanted: Affine, outside: int, draw: np.random.Generator) -> Pixels:
    height, width = pixels.sides
    angle = draw.uniform(-wanted.rotation, wanted.rotation)
    shift = [
        round(draw.uniform(-share, share) * side)
        for share, side in zip(wanted.translate, (width, height), strict=True)
    ]
    factor = draw.uniform(*wanted.scale)
    shear = [draw.uniform(-limit, limit) for limit in wanted.shear]
    # torchvision's affine map does not support NEAREST_EXACT.
    modes = {"nearest": InterpolationMode.NEAREST, "bilinear": InterpolationMode.BILINEAR}

    def move(fill: int, mode: InterpolationMode) -> Callable[[Tensor], Tensor]:
        return lambda values: functional.affine(
            values, angle, shift, factor, shear, interpolation=mode, fill=float(fill)
        )

    return pixels.change(move(wanted.fill, modes[wanted.interpolation]), move(outside, modes["nearest"]))


def _scale(pixels: Pixels, wanted: Scale, draw: np.random.Generator) -> Pixels:
    factor = wanted.factors[int(draw.integers(len(wanted.factors)))]
    sides = [max(1, int(factor * side)) for side in pixels.sides]

    def resize(mode: str) -> Callable[[Tensor], Tensor]:
        return lambda values: functional.resize(
            values, sides, interpolation=_MODES[mode], antialias=mode == "bilinear"
        )

    return pixels.change(resize("bilinear"), resize("nearest"), resize(wanted.maskige))


def _crop(pixels: Pixels, size: int, draw: np.random.Generator) -> Pixels:
    """Crop at a random position to at most ``size`` a side."""
    height, width = (min(side, size) for side in pixels.sides)
    top, left = (
        int(draw.integers(side - kept + 1)) for side, kept in zip(pixels.sides, (height, width), strict=True)
    )

    def cut(values: Tensor) -> Tensor:
        return values[..., top : top + height, left : left + width]

    return pixels.change(cut, cut)


@dataclass(frozen=True)
class _Colours:
    """One draw of the colour jitter; the defaults are the identity."""

    brightness: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    contrast_last: bool = False

    @classmethod
    def draw(cls, wanted: Jitter, draw: np.random.Generator) -> _Colours:
        values = {
            "brightness": draw.uniform(-wanted.brightness, wanted.brightness),
            "contrast": draw.uniform(*wanted.contrast),
            "saturation": draw.uniform(*wanted.saturation),
            "hue": draw.uniform(-wanted.hue, wanted.hue),
        }
        taken = {name: value for name, value in values.items() if draw.random() < wanted.probability}
        return cls(**taken, contrast_last=bool(draw.random() < 0.5))

    def __call__(self, images: Tensor) -> Tensor:
        """Change the colours of (...,3,h,w) uint8, in the order of detectron2's ``ColorAugSSDTransform``."""
        images = _clip(images.float() + self.brightness)
        if not self.contrast_last:
            images = _clip(images.float() * self.contrast)
        if self.saturation != 1:
            images = saturate(images, self.saturation)
        if self.hue:
            images = functional.adjust_hue(images, self.hue / 360)
        if self.contrast_last:
            images = _clip(images.float() * self.contrast)
        return images


def _jitter(pixels: Pixels, wanted: Jitter, draw: np.random.Generator) -> Pixels:
    if not wanted.per_frame:
        colours = _Colours.draw(wanted, draw)
        maskige = pixels.maskige
        if maskige is not None and wanted.maskige:
            maskige = colours(maskige)
        return replace(pixels, images=colours(pixels.images), maskige=maskige)

    def each(frames: Tensor) -> Tensor:
        return torch.stack([_Colours.draw(wanted, draw)(frame) for frame in frames])

    images, maskige = each(pixels.images), pixels.maskige
    if maskige is not None and wanted.maskige:
        maskige = each(maskige)
    return replace(pixels, images=images, maskige=maskige)


def saturate(images: Tensor, factor: float) -> Tensor:
    """Multiply the HSV saturation of (...,3,h,w) uint8 RGB by ``factor``, to at most 1; keep hue and value.

    The value V is the largest channel and the saturation S = (V - smallest) / V, so that every channel's
    distance from V is proportional to S.
    """
    values = images.float()
    top, low = values.amax(-3, keepdim=True), values.amin(-3, keepdim=True)
    most = top / (top - low).clamp(min=1)  # 1 / S
    return _clip((top - (top - values) * most.clamp(max=factor)).round())


def _clip(values: Tensor) -> Tensor:
    return values.clamp(0, 255).to(torch.uint8)
