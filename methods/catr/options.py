"""What can be changed about network and loss, with the released values as defaults. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt

from avsbench_harness.schema import Schema

#: Groups of every group normalisation.
GROUPS = 8
#: Heads of every attention.
HEADS = 8
#: The narrowest normalised map has an eighth of ``dim`` channels, which the groups must divide.
STEP = 8 * GROUPS


class Options(Schema):
    """Build options of CATR; the defaults are the released configuration."""

    queries: PositiveInt = Field(50, description="learned queries, the same in every frame")
    dim: PositiveInt = Field(256, multiple_of=STEP, description="channels of tokens and queries")
    kernel_channels: PositiveInt = Field(64, description="channels of the mask feature and of kernels")
    encoder_layers: int = Field(3, ge=2, description="spatial layers, and temporal blocks")
    decoder_layers: PositiveInt = Field(3, description="layers that read tokens into the queries")
    ffn_dim: PositiveInt = Field(2048, description="hidden width of every feed-forward block")
    dropout: float = Field(0.1, ge=0, lt=1, description="in transformer layers and on audio tokens")

    audio_tokens: Literal["clip", "frame"] = Field(
        "clip", description="whose sound is appended to a frame's tokens: the whole clip's, or its own"
    )
    fusion_power: Literal[1, 2] = Field(
        2, description="how often temporal fusion multiplies the tokens by what they attend to"
    )
    later_gates: Literal["first_pair", "own_pair"] = Field(
        "first_pair", description="which blocks the gates after the first one look at"
    )

    match_reference: NonNegativeFloat = Field(
        2.0, allow_inf_nan=False, description="matching cost of the probability to sound"
    )
    match_dice: NonNegativeFloat = Field(
        7.0, allow_inf_nan=False, description="matching cost of the Dice coefficient"
    )
    unmatched_weight: NonNegativeFloat = Field(
        0.1, allow_inf_nan=False, description="of queries that should not sound, in the reference loss"
    )
    silent_target: Literal["sounding", "silent"] = Field(
        "sounding", description="what the matched query should say in frames where nothing sounds"
    )
    reference_weight: NonNegativeFloat = Field(1.0, allow_inf_nan=False, description="of the reference loss")
    dice_weight: NonNegativeFloat = Field(5.0, allow_inf_nan=False, description="of the Dice loss")
    focal_weight: NonNegativeFloat = Field(5.0, allow_inf_nan=False, description="of the focal loss")
    bce_weight: NonNegativeFloat = Field(4.0, allow_inf_nan=False, description="of the pixels' cross-entropy")
    bce_input: Literal["probability", "logit"] = Field(
        "probability",
        description="what the pixels' cross-entropy takes for a logit: the probability, or the logit",
    )

    pretrained: bool | Path = Field(False, description="ImageNet weights for the backbone, or their file")
    drop_path_rate: float | None = Field(
        None, ge=0, lt=1, description="stochastic depth of the backbone; None: timm's default"
    )

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Options from keywords.

        Raises:
            UsageError: one is unknown or out of range.
        """
        return cls.parse(options, "the options of catr")
