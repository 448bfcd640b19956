"""Build options of CATR, and the defaults of each variant. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.options import BuildOptions, Unused
from avsbench_harness.tasks import Task

#: Groups of every group normalisation.
GROUPS = 8
#: Heads of every attention.
HEADS = 8
#: The narrowest normalised map has an eighth of ``dim`` channels, which the groups must divide.
STEP = 8 * GROUPS

#: Defaults of the paper that differ from the released configuration. Sections, equations and the choices made
#: where the paper leaves a value open are in the model card.
PAPER: Mapping[str, Any] = {
    "encoder": "sequence",
    "audio_tokens": "frame",
    "fusion": "sum",
    "va_keys": "spatial",
    "gate": "channel",
    "gate_first_block": True,
    "query_source": "audio",
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


class Options(BuildOptions):
    """Build options of CATR; the defaults are the released configuration."""

    method = "catr"
    variant_defaults: ClassVar = {"paper": PAPER}

    input_scale: PositiveInt = Field(
        1, description="enlargement of the images before the backbone; masks and predictions keep their size"
    )
    queries: PositiveInt = Field(50, description="learned queries, the same in every frame")
    dim: PositiveInt = Field(256, multiple_of=STEP, description="channels of tokens and queries")
    kernel_channels: PositiveInt | None = Field(
        64, description="channels of the mask feature and of the kernels; None: dim"
    )
    encoder_layers: int = Field(3, ge=2, description="blocks of the encoder")
    decoder_layers: PositiveInt = Field(3, description="layers of the query decoder")
    ffn_dim: PositiveInt = Field(2048, description="hidden width of every feed-forward block")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout in transformer layers and on audio tokens")

    audio: bool = Field(True, description="use the audio (Table 4)")
    encoder: Literal["parallel", "sequence", "none"] = Field(
        "parallel",
        description="parallel spatial and temporal stacks, blocks of both in sequence, or no blocks",
    )
    spatial_fusion: bool = Field(True, description="self-attention in each frame (equation 3; Table 5)")
    temporal_av_fusion: bool = Field(True, description="pixels attend to the audio (equation 4; Table 5)")
    temporal_va_fusion: bool = Field(True, description="the audio attends to pixels (equation 5; Table 5)")
    audio_tokens: Literal["clip", "frame"] = Field(
        "clip", description="audio tokens appended to a frame's pixels: those of the clip, or its own"
    )
    fusion: Literal["product", "sum"] = Field(
        "product", description="how temporal fusion combines tokens and their attention output"
    )
    fusion_power: Literal[1, 2] = Field(2, description="exponent of the attention output in the product")
    va_keys: Literal["fused", "spatial"] = Field(
        "fused", description="pixels that the audio attends to: after A-to-V fusion, or before it"
    )

    gate: Literal["frame", "channel", "none"] = Field(
        "frame", description="one weight per frame, one per channel, or the last block only (Table 3)"
    )
    gate_channels: PositiveInt | None = Field(
        None, description="weights of a channel gate, each for dim / weights channels (Table 6); None: dim"
    )
    gate_first_block: bool = Field(
        False, description="add the first block's pixels to the gated ones (equation 6)"
    )
    later_gates: Literal["first_pair", "own_pair"] = Field(
        "first_pair", description="blocks from which the frame gates after the first are computed"
    )

    decoding: Literal["queries", "direct"] = Field(
        "queries", description="masks of queries, or one mask directly from the mask feature (Table 3)"
    )
    query_source: Literal["learned", "audio", "video"] = Field(
        "learned",
        description="learned queries; learned queries initialised with their frame's audio (section 4.1); or "
        "the frame's features of stride 32 in place of learned queries (Table 4)",
    )
    mask_stride: Literal[8, 16] = Field(16, description="stride of the mask feature, pixels")
    selection: Literal["frame", "clip"] = Field(
        "frame", description="choose the final query per frame, or once per clip (equation 10)"
    )

    match_reference: NonNegativeFloat = Field(
        2.0, allow_inf_nan=False, description="weight of the reference in the matching cost"
    )
    match_reference_by: Literal["probability", "cross_entropy"] = Field(
        "probability", description="matching cost of the reference: minus its probability, or minus its log"
    )
    match_dice: NonNegativeFloat = Field(
        7.0, allow_inf_nan=False, description="weight of the Dice coefficient in the matching cost"
    )
    dice: Literal["sums", "squares"] = Field("sums", description="denominator of the Dice coefficient")
    unmatched_weight: NonNegativeFloat = Field(
        0.1, allow_inf_nan=False, description="weight of queries without sound in the reference loss"
    )
    silent_target: Literal["sounding", "silent"] = Field(
        "sounding", description="target of a matched query in frames where its object is silent"
    )
    reference_weight: NonNegativeFloat = Field(
        1.0, allow_inf_nan=False, description="weight of the reference loss"
    )
    dice_weight: NonNegativeFloat = Field(5.0, allow_inf_nan=False, description="weight of the Dice loss")
    focal_weight: NonNegativeFloat = Field(5.0, allow_inf_nan=False, description="weight of the focal loss")
    bce_weight: NonNegativeFloat = Field(4.0, allow_inf_nan=False, description="weight of the pixels' BCE")
    bce_input: Literal["probability", "logit"] = Field(
        "probability",
        description="input of the pixels' BCE with logits: the probability (released), or the logit",
    )

    @property
    def mask_channels(self) -> int:
        """Channels of the mask feature."""
        return self.kernel_channels or self.dim

    @property
    def fuses_to_video(self) -> bool:
        """Whether blocks have A-to-V fusion."""
        return self.audio and self.temporal_av_fusion

    @property
    def fuses_to_audio(self) -> bool:
        """Whether blocks have V-to-A fusion."""
        return self.audio and self.temporal_va_fusion

    def check(self, task: Task) -> None:
        """Refuse options that contradict each other."""
        if task.semantic and self.decoding == "direct":
            raise UsageError(f"decoding: direct makes one mask without a class, so it cannot do {task.name}.")
        if self.encoder != "none" and not (self.spatial_fusion or self.fuses_to_video):
            raise UsageError(
                "Blocks without spatial_fusion and without temporal_av_fusion leave pixels as they are; "
                "use encoder: none."
            )
        if self.gate == "channel" and self.dim % (self.gate_channels or self.dim):
            raise UsageError(
                f"gate_channels: {self.gate_channels} does not divide the {self.dim} channels of dim."
            )
        if self.decoding == "queries" and self.query_source == "audio" and not self.audio:
            raise UsageError(
                "query_source: audio initialises queries with the audio, which audio: false removes; use "
                "query_source: video, as in the paper's Table 4, or learned."
            )

    def unused(self, task: Task) -> Iterator[Unused]:
        """Yield options without effect, and the reason."""
        yield from self._unused_in_encoder()
        yield from self._unused_in_gate()
        if self.decoding == "direct":
            yield (
                ("queries", "decoder_layers", "query_source", "selection", "match_reference",
                 "match_reference_by", "match_dice", "unmatched_weight", "silent_target", "reference_weight"),
                "because decoding: direct has no queries",
            )  # fmt: skip
            if self.encoder == "none":
                yield ("ffn_dim",), "because without blocks and queries there is no feed-forward block"
        elif self.query_source == "video":
            yield ("queries",), "because query_source: video has no learned queries"
        if not self.match_reference:
            yield ("match_reference_by",), "with match_reference: 0"
        if not self.dice_weight and (not self.match_dice or self.decoding == "direct"):
            yield ("dice",), "because no Dice coefficient is computed"
        if not self.bce_weight:
            yield ("bce_input",), "because bce_weight is 0"

    def _unused_in_encoder(self) -> Iterator[Unused]:
        temporal = ("fusion", "fusion_power", "va_keys")
        audio = ("temporal_av_fusion", "temporal_va_fusion", "audio_tokens", *temporal)
        gates = ("gate", "gate_channels", "gate_first_block", "later_gates")
        if self.encoder == "none":
            yield ("encoder_layers", "spatial_fusion", *audio, *gates), "because encoder: none has no blocks"
        if not self.audio:
            yield audio, "because audio: false removes the audio"
        if self.encoder == "sequence" and not self.spatial_fusion:
            yield ("audio_tokens",), "with spatial_fusion: false, which appends no audio tokens"
        if not (self.fuses_to_video or self.fuses_to_audio):
            yield temporal, "because there is no temporal fusion"
        if not (self.fuses_to_video and self.fuses_to_audio):
            yield ("va_keys",), "without both temporal fusions"
        if self.fusion != "product":
            yield ("fusion_power",), f"because fusion is {self.fusion}"

    def _unused_in_gate(self) -> Iterator[Unused]:
        if self.gate != "frame" or self.encoder_layers == 2:
            reason = f"because gate: {self.gate} over {self.encoder_layers} blocks has no later gates"
            yield ("later_gates",), reason
        if self.gate != "channel":
            yield ("gate_channels",), f"because gate is {self.gate}"
        if self.gate == "none":
            yield ("gate_first_block",), "because gate: none uses the last block only"
