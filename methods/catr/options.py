"""What can be changed about network and loss, with the defaults of each variant. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt

from avsbench_harness.errors import UsageError
from avsbench_harness.schema import Schema
from avsbench_harness.tasks import Task

#: Groups of every group normalisation.
GROUPS = 8
#: Heads of every attention.
HEADS = 8
#: The narrowest normalised map has an eighth of ``dim`` channels, which the groups must divide.
STEP = 8 * GROUPS

#: Where the paper differs from the released configuration, which the fields' own defaults are. Sections
#: and equations, and what was chosen where the paper leaves it open, are in the model card.
PAPER: Mapping[str, Any] = {
    "encoder": "sequence",
    "audio_tokens": "frame",
    "fusion": "sum",
    "va_keys": "spatial",
    "gate": "channel",
    "gate_first_block": True,
    "audio_constrained_queries": True,
    "mask_stride": 8,
    "kernel_channels": None,
    "selection": "clip",
    "match_reference": 1.0,
    "match_reference_by": "cross_entropy",
    "match_dice": 1.0,
    "dice": "squares",
    "silent_target": "silent",
    "bce_weight": 0.0,
    "bce_input": "logit",
}
VARIANTS: Mapping[str, Mapping[str, Any]] = {"released": {}, "paper": PAPER}


class Options(Schema):
    """Build options of CATR; the fields' defaults are the released configuration."""

    queries: PositiveInt = Field(50, description="learned queries, the same in every frame")
    dim: PositiveInt = Field(256, multiple_of=STEP, description="channels of tokens and queries")
    kernel_channels: PositiveInt | None = Field(
        64, description="channels of the mask feature and of kernels; None: dim"
    )
    encoder_layers: int = Field(3, ge=2, description="blocks of the encoder")
    decoder_layers: PositiveInt = Field(3, description="layers that read tokens into the queries")
    ffn_dim: PositiveInt = Field(2048, description="hidden width of every feed-forward block")
    dropout: float = Field(0.1, ge=0, lt=1, description="in transformer layers and on audio tokens")

    audio: bool = Field(True, description="whether the network hears the sound (Table 4)")
    encoder: Literal["parallel", "sequence", "none"] = Field(
        "parallel",
        description="spatial and temporal stacks side by side, blocks of both in sequence, or no blocks",
    )
    spatial_fusion: bool = Field(True, description="self-attention in each frame (equation 3; Table 5)")
    temporal_av_fusion: bool = Field(True, description="pixels attend to sound (equation 4; Table 5)")
    temporal_va_fusion: bool = Field(True, description="sound attends to pixels (equation 5; Table 5)")
    audio_tokens: Literal["clip", "frame"] = Field(
        "clip", description="whose sound is appended to a frame's tokens: the whole clip's, or its own"
    )
    fusion: Literal["product", "sum"] = Field(
        "product", description="how temporal fusion joins tokens and what they attend to"
    )
    fusion_power: Literal[1, 2] = Field(
        2, description="how often a product multiplies the tokens by what they attend to"
    )
    va_keys: Literal["fused", "spatial"] = Field(
        "fused", description="which pixels the sound attends to: after A-to-V fusion, or before it"
    )

    gate: Literal["frame", "channel", "none"] = Field(
        "frame", description="one weight per frame, one per channel, or the last block alone (Table 3)"
    )
    gate_channels: PositiveInt | None = Field(
        None, description="weights of a gate per channel; they share the channels out (Table 6); None: dim"
    )
    gate_first_block: bool = Field(
        False, description="whether the first block's pixels are added to the gated ones (equation 6)"
    )
    later_gates: Literal["first_pair", "own_pair"] = Field(
        "first_pair", description="which blocks the gates per frame after the first one look at"
    )

    decoding: Literal["queries", "direct"] = Field(
        "queries", description="masks of queries, or one mask straight from the mask feature (Table 3)"
    )
    audio_constrained_queries: bool = Field(
        False, description="whether queries start from their frame's sound (section 4.1)"
    )
    mask_stride: Literal[8, 16] = Field(16, description="of the mask feature, in pixels")
    selection: Literal["frame", "clip"] = Field(
        "frame", description="whether the final query is chosen frame by frame, or once (equation 10)"
    )

    match_reference: NonNegativeFloat = Field(
        2.0, allow_inf_nan=False, description="matching cost of the reference"
    )
    match_reference_by: Literal["probability", "cross_entropy"] = Field(
        "probability", description="what of the reference's probability is the cost: minus it, or its log"
    )
    match_dice: NonNegativeFloat = Field(
        7.0, allow_inf_nan=False, description="matching cost of the Dice coefficient"
    )
    dice: Literal["sums", "squares"] = Field(
        "sums", description="what stands in the denominator of the Dice coefficient"
    )
    unmatched_weight: NonNegativeFloat = Field(
        0.1, allow_inf_nan=False, description="of queries that should not sound, in the reference loss"
    )
    silent_target: Literal["sounding", "silent"] = Field(
        "sounding", description="what a matched query should say in frames where its object is not heard"
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
    def of(cls, options: Mapping[str, Any], task: Task, variant: str) -> Self:
        """Options from keywords, laid on a variant's defaults.

        Raises:
            UsageError: one is unknown, out of range, contradicts another, or has no effect beside it.
        """
        parsed = cls.parse({**VARIANTS[variant], **options}, "the options of catr")
        parsed._check(task)
        for names, reason in parsed._idle():
            for name in options:
                if name in names:
                    raise UsageError(f"The option {name} has no effect, because {reason}; leave it out.")
        return parsed

    @property
    def masks_channels(self) -> int:
        """Channels of the mask feature."""
        return self.kernel_channels or self.dim

    @property
    def pixels_hear(self) -> bool:
        """Whether blocks have A-to-V fusion."""
        return self.audio and self.temporal_av_fusion

    @property
    def sound_sees(self) -> bool:
        """Whether blocks have V-to-A fusion."""
        return self.audio and self.temporal_va_fusion

    def _check(self, task: Task) -> None:
        if task.semantic and self.decoding == "direct":
            raise UsageError(f"decoding: direct makes one mask without a class, so it cannot do {task.name}.")
        if self.encoder != "none" and not (self.spatial_fusion or self.pixels_hear):
            raise UsageError(
                "Blocks without spatial_fusion and without temporal_av_fusion leave pixels as they are; "
                "use encoder: none."
            )
        if self.gate == "channel" and self.dim % (self.gate_channels or self.dim):
            raise UsageError(
                f"gate_channels: {self.gate_channels} cannot share out the {self.dim} channels of dim."
            )

    def _idle(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Names of options without effect, and why."""
        temporal = ("fusion", "fusion_power", "va_keys")
        switches = ("spatial_fusion", "temporal_av_fusion", "temporal_va_fusion", "audio_tokens", *temporal)
        gates = ("gate", "gate_channels", "gate_first_block", "later_gates")
        if self.encoder == "none":
            yield ("encoder_layers", *switches, *gates), "encoder: none has no blocks"
        if not self.audio:
            yield (*switches[1:], "audio_constrained_queries"), "audio: false leaves no sound"
        if self.encoder == "sequence" and not self.spatial_fusion:
            yield ("audio_tokens",), "spatial_fusion: false puts no sound beside the pixels"
        if not (self.pixels_hear or self.sound_sees):
            yield temporal, "there is no temporal fusion"
        if not (self.pixels_hear and self.sound_sees):
            yield ("va_keys",), "it only tells the two temporal fusions' pixels apart"
        if self.fusion != "product":
            yield ("fusion_power",), f"fusion is {self.fusion}"
        if self.gate != "frame" or self.encoder_layers == 2:
            yield (
                ("later_gates",),
                f"there are no later gates with gate: {self.gate} over {self.encoder_layers} blocks",
            )
        if self.gate != "channel":
            yield ("gate_channels",), f"gate is {self.gate}"
        if self.gate == "none":
            yield ("gate_first_block",), "gate: none takes the last block alone"
        if self.decoding == "direct":
            yield (
                ("queries", "decoder_layers", "audio_constrained_queries", "selection", "match_reference",
                 "match_reference_by", "match_dice", "unmatched_weight", "silent_target", "reference_weight"),
                "decoding: direct has no queries",
            )  # fmt: skip
            if self.encoder == "none":
                yield ("ffn_dim",), "without blocks and queries there is no feed-forward block"
        if not self.match_reference:
            yield ("match_reference_by",), "match_reference is 0"
        if not self.dice_weight and (not self.match_dice or self.decoding == "direct"):
            yield ("dice",), "no Dice coefficient is computed"
        if not self.bce_weight:
            yield ("bce_input",), "bce_weight is 0"
