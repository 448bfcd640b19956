"""Options of the augmentation of training clips. Imports no torch.

The same geometric transform applies to a clip's frames, masks and maskiges. Order: affine transform, scaling,
cropping, colour jitter, flip, padding. Implemented in ``data.transforms``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    PositiveFloat,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from avsbench_harness.schema import Schema

#: Class index of ignored pixels, neither background nor any class.
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
    """Random rotation, translation, scaling and shear about the centre, uniform, one draw per clip."""

    rotation: float = Field(0.0, ge=0, le=180, description="maximum, degrees")
    translate: tuple[Share, Share] = Field((0.0, 0.0), description="maximum, fractions of width and height")
    scale: Limits = Field((1.0, 1.0), description="range of the factor")
    shear: tuple[Angle, Angle] = Field((0.0, 0.0), description="maximum along x and y, degrees")
    interpolation: Literal["nearest", "bilinear"] = Field(
        "nearest", description="of frames and maskiges; masks always use nearest"
    )
    fill: Grey = Field(0, description="grey value outside the frame")


class Scale(Schema):
    """Random scaling, one draw per clip; the result is cropped or padded to the input size.

    A larger frame is cropped at a random position, a smaller one padded on the right and at the bottom.
    """

    factors: list[PositiveFloat] = Field(min_length=1, description="drawn from uniformly")
    maskige: Literal["nearest", "bilinear"] = Field("nearest", description="interpolation of maskiges")
    fill: Grey = Field(128, description="grey value of the padding")


class Jitter(Schema):
    """Random brightness, contrast, saturation and hue, as in SSD (Liu et al., 2016)."""

    probability: Share = Field(0.5, description="of each of the four operations")
    brightness: float = Field(32.0, ge=0, le=255, description="maximum offset, of 255")
    contrast: Limits = Field((0.5, 1.5), description="range of the factor on all values")
    saturation: Limits = Field((0.5, 1.5), description="range of the factor on the HSV saturation")
    hue: float = Field(36.0, ge=0, le=180, description="maximum rotation, degrees")
    per_frame: bool = Field(False, description="one draw per frame instead of one per clip")
    maskige: bool = Field(False, description="apply to maskiges too, with separate draws if per_frame")


class NegativeAudio(Schema):
    """Training clips whose recording is replaced and whose masks are empty; probabilities per clip."""

    silence: Share = Field(0.0, description="digital silence")
    noise: Share = Field(0.0, description="white or pink noise with the power of a training recording")
    swapped: Share = Field(0.0, description="another training clip's, of kinds that are not visible")

    @model_validator(mode="after")
    def _shares(self) -> NegativeAudio:
        total = self.silence + self.noise + self.swapped
        if not 0 < total <= 1:
            raise ValueError("the probabilities of negative_audio must add up to more than 0 and at most 1")
        return self


class Augment(Schema):
    """Augmentation of training clips."""

    flip: Share = Field(0.0, description="probability of a horizontal flip per clip")
    affine: Affine | None = None
    scale: Scale | None = None
    jitter: Jitter | None = None
    outside: Literal["background", "ignore"] = Field(
        "background", description="class of mask pixels outside the frame; ignore: excluded from the loss"
    )
    negative_audio: NegativeAudio | None = Field(
        None, description="clips with silence, noise or another recording, and empty masks"
    )

    @model_serializer(mode="wrap")
    def _without_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out ``negative_audio`` if it is ``None``: specs of earlier versions keep their hash."""
        values: dict[str, Any] = handler(self)
        if values.get("negative_audio") is None:
            values.pop("negative_audio", None)
        return values

    @property
    def outside_class(self) -> int:
        """The class index of pixels outside the frame."""
        return IGNORED if self.outside == "ignore" else 0
