"""Augmentation of training clips: what is drawn, and within which limits. Imports no torch.

A clip's frames, masks and maskiges go through one and the same geometry. The order is: affine map, scale,
crop, colour jitter, mirror, padding. ``data.transform`` carries it out.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat

from avsbench_harness.schema import Schema

#: Class index of pixels that belong to no class and to no background, where a recipe wants such.
IGNORED = 255


def _ascending(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError("the lower limit comes first")
    return limits


Limits = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_ascending)]
Share = Annotated[float, Field(ge=0, le=1)]
Angle = Annotated[float, Field(ge=0, lt=90)]
Grey = Annotated[int, Field(ge=0, le=255)]


class Affine(Schema):
    """Rotation, shift, scale and shear about the centre, drawn once per clip, uniformly."""

    rotation: float = Field(0.0, ge=0, le=180, description="largest, degrees either way")
    translate: tuple[Share, Share] = Field((0.0, 0.0), description="largest, shares of width and height")
    scale: Limits = Field((1.0, 1.0), description="limits of the factor")
    shear: tuple[Angle, Angle] = Field((0.0, 0.0), description="largest along x and y, degrees either way")
    interpolation: Literal["nearest", "bilinear"] = Field(
        "nearest", description="of frames and maskiges; masks always take the nearest pixel"
    )
    fill: Grey = Field(0, description="outside the frame")


class Scale(Schema):
    """Resizing by one of some factors, drawn once per clip, and back to the input's size.

    A larger frame is cropped at random, a smaller one padded at the right and at the bottom.
    """

    factors: list[PositiveFloat] = Field(min_length=1, description="one is chosen")
    maskige: Literal["nearest", "bilinear"] = Field("nearest", description="how maskiges are resized")
    fill: Grey = Field(128, description="of the padding")


class Jitter(Schema):
    """Random colours: brightness, contrast, saturation and hue, after SSD (Liu et al., 2016)."""

    probability: Share = Field(0.5, description="of each of the four")
    brightness: float = Field(32.0, ge=0, le=255, description="largest sum either way, of 255")
    contrast: Limits = Field((0.5, 1.5), description="limits of the factor on all values")
    saturation: Limits = Field((0.5, 1.5), description="limits of the factor on the saturation of HSV")
    hue: float = Field(36.0, ge=0, le=180, description="largest turn either way, degrees")
    per_frame: bool = Field(False, description="every frame draws its own, not every clip")
    maskige: bool = Field(False, description="of maskiges too, with draws of their own if per_frame")


class Augment(Schema):
    """What is done to the clips of a training epoch."""

    flip: Share = Field(0.0, description="probability that a clip is mirrored")
    affine: Affine | None = None
    scale: Scale | None = None
    jitter: Jitter | None = None
    outside: Literal["background", "ignore"] = Field(
        "background", description="masks outside the frame; ignore: of no class, see IGNORED"
    )

    @property
    def outside_class(self) -> int:
        """The class index of pixels outside the frame."""
        return IGNORED if self.outside == "ignore" else 0
