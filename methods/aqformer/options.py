"""What can be changed about the network; the defaults are the paper's, or, where it is silent, chosen here.

The model card says of each which of the two it is. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveInt

from avsbench_harness.errors import UsageError
from avsbench_harness.schema import Schema
from avsbench_harness.tasks import Task

#: Groups of every group normalisation, and so the step of ``dim``.
GROUPS = 32
#: Scales of the visual features by the paper's numbers, coarsest first: strides 32, 16, 8 and 4.
SCALES = (1, 2, 3, 4)


def _ascending(scales: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(scales)) < len(scales):
        raise ValueError("no scale may be named twice")
    return tuple(sorted(scales))


Weight = Annotated[NonNegativeFloat, Field(allow_inf_nan=False)]
Scales = Annotated[tuple[Annotated[int, Field(ge=SCALES[0], le=SCALES[-1])], ...], AfterValidator(_ascending)]


class Options(Schema):
    """Build options of AQFormer."""

    queries: Literal["audio", "vanilla"] = Field(
        "audio", description="what object queries start from: the sound of their frame, or nothing (Table 2a)"
    )
    query_frames: Literal["all", "own"] = Field(
        "all", description="frames whose pixels a query attends to; own is Audio Query† (Table 2a)"
    )
    abti: Scales = Field(SCALES, description="scales with ABTI, 1 coarsest to 4 finest (Tables 2b and 2c)")
    similarity_loss: bool = Field(True, description="equations 7 and 8 (Table 2b)")
    stages: PositiveInt = Field(3, description="N, of one decoder layer per coarser scale (Table 2d)")

    dim: PositiveInt = Field(256, multiple_of=GROUPS, description="C_f, channels of maps and queries")
    heads: PositiveInt = Field(8, description="of all attention")
    ffn_dim: PositiveInt = Field(2048, description="hidden width of the decoder's feed-forward blocks")
    dropout: float = Field(0.0, ge=0, lt=1, description="in the decoder's layers")
    encoder_layers: PositiveInt = Field(6, description="deformable layers of the pixel decoder")
    encoder_ffn_dim: PositiveInt = Field(1024, description="hidden width of their feed-forward blocks")
    abti_dim: PositiveInt = Field(256, description="C_b, channels of ABTI's object features")
    audio_softmax: Literal["audio", "pixels"] = Field(
        "audio", description="what equation 1's softmax runs over; a frame has one audio token"
    )
    fusion_dim: PositiveInt = Field(256, description="C_m, channels in which equation 1 compares")

    bce_weight: Weight = Field(1.0, description="lambda_bce")
    dice_weight: Weight = Field(1.0, description="lambda_dice")
    similarity_weight: Weight = Field(1.0, description="lambda_sim")
    class_weight: Weight = Field(1.0, description="of the class head's loss (avss)")

    pretrained: bool | Path = Field(False, description="ImageNet weights for the backbone, or a file")
    drop_path_rate: float | None = Field(
        None, ge=0, lt=1, description="stochastic depth of the backbone; None: timm's default"
    )

    @classmethod
    def of(cls, options: Mapping[str, Any], task: Task) -> Self:
        """Options from keywords.

        Raises:
            UsageError: one is unknown, out of range, or without effect on the task or beside the others.
        """
        parsed = cls.parse(options, "the options of aqformer")
        for name in ("dim", "abti_dim"):
            if getattr(parsed, name) % parsed.heads:
                raise UsageError(
                    f"The option heads of aqformer is {parsed.heads}, which does not divide "
                    f"{name} {getattr(parsed, name)}."
                )
        for name, needed in parsed._idle(task).items():
            if name in parsed.model_fields_set:
                raise UsageError(
                    f"The option {name} of aqformer has no effect without {needed}; leave it out."
                )
        return parsed

    def _idle(self, task: Task) -> dict[str, str]:
        """Options that have no effect beside the others, and what they would need."""
        idle: dict[str, str] = {}
        if not self.abti:
            idle["abti_dim"] = "abti on some scale"
        if not self.similarity_loss:
            idle["similarity_weight"] = "similarity_loss"
        if self.audio_softmax == "audio":
            idle["fusion_dim"] = "audio_softmax pixels: the softmax over one audio token is 1"
        if not task.semantic:
            idle["class_weight"] = "classes, which only avss has"
        return idle
