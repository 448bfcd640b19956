"""What can be changed about network and loss, with the defaults of each variant. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from avsbench_harness.errors import UsageError
from avsbench_harness.schema import Schema
from avsbench_harness.tasks import Task

#: Channels of all heads of the fusion together.
FUSION_DIM = 256

#: Where the paper differs from the released configuration, which the fields' own defaults are. Sections and
#: equations, and what was chosen where the paper leaves it open, are in the model card.
PAPER: Mapping[str, Any] = {
    "channel_weight": "linear",
    "fusion_heads": 1,
    "fusion_norm": False,
    "fusion_level_embedding": False,
    "fusion_positions": "projections",
    "fusion_gamma": None,
    "visual_softmax": "sounds",
    "attention_limit": None,
    "audio_pairing": "own",
    "consistency_reduction": "sum",
    "consistency_chunk": None,
    "object_score": "share",
}
#: Weight of inter-frame consistency for avss in the paper (section 4.2); elsewhere it is the released one.
PAPER_SEMANTIC_CONSISTENCY = 5.0


class Options(Schema):
    """Build options of COMBO; the fields' defaults are the released configuration."""

    queries: PositiveInt = Field(100, description="object queries of a frame")
    dim: PositiveInt = Field(256, multiple_of=32, description="channels of maps, queries, mask features")
    encoder_layers: PositiveInt = Field(6, description="deformable layers of the pixel decoder")
    encoder_ffn_dim: PositiveInt = Field(1024, description="hidden width in them")
    decoder_layers: PositiveInt = Field(9, description="masked-attention layers")
    ffn_dim: PositiveInt = Field(2048, description="hidden width in them")
    audio_mlp_dim: PositiveInt = Field(4096, description="hidden width between the sound and the queries")
    pretrained: bool | Path = Field(False, description="ImageNet weights for the backbones, or their file")
    drop_path_rate: float | None = Field(
        None, ge=0, lt=1, description="stochastic depth; None: 0.1 for pvt as released, else timm's default"
    )
    frozen_norm: bool = Field(True, description="batch norms never learn, neither statistics nor affine")

    # What the paper's ablations take away or exchange.
    use_maskige: bool = Field(True, description="false: no maskiges, no Siam-Encoder (Table 3)")
    shared_encoder: bool = Field(False, description="one backbone for images and maskiges (Table 4)")
    fusion: Literal["bilateral", "visual", "audio", "none"] = Field(
        "bilateral",
        description="what is fused: both, only sound into pixels, only pixels into sound (Table 5)",
    )
    audio_queries: Literal["add", "all"] = Field(
        "add", description="sound is added to learned queries, or is all there is of them (Table 6)"
    )
    consistency_weight: NonNegativeFloat = Field(
        10.0, allow_inf_nan=False, description="of inter-frame consistency (Table 7)"
    )

    # Where the published code does what the paper does not say; the defaults are the published behaviour.
    channel_weight: Literal["excitation", "linear"] = Field(
        "excitation", description="how a channel's weight comes from its mean (equation 3: linear)"
    )
    fusion_heads: Literal[1, 2, 4, 8, 16] = Field(8, description="attention heads of the fusion")
    fusion_dropout: float = Field(0.1, ge=0, lt=1, description="on the attention of the fusion")
    fusion_norm: bool = Field(True, description="the fusion layer-normalises its inputs")
    normed_residual: bool = Field(
        True, description="the fusion adds to the layer-normed inputs rather than to the inputs"
    )
    fusion_level_embedding: bool = Field(True, description="pixels get a learned vector before the fusion")
    fusion_positions: Literal["logits", "projections"] = Field(
        "logits", description="who sees position codes: queries and keys, or values as well"
    )
    fusion_gamma: float | None = Field(
        1e-4,
        allow_inf_nan=False,
        description="first value of learned factors on what the fusion adds; None: no factors",
    )
    visual_softmax: Literal["positions", "sounds"] = Field(
        "positions", description="axis over which pixels weigh the sound (equation 4: sounds)"
    )
    attention_limit: PositiveFloat | None = Field(
        50_000.0, description="attention logits of the fusion are clamped to this magnitude; None: never"
    )
    audio_pairing: Literal["scrambled", "own"] = Field(
        "scrambled", description="scrambled: queries hear other frames of the batch; own: their frame"
    )
    object_score: Literal["softmax", "share"] = Field(
        "softmax",
        description="probability of sound from the scores of sound and background: softmax of the sums, or "
        "the share in them",
    )

    class_weight: NonNegativeFloat = Field(2.0, allow_inf_nan=False, description="of the class loss")
    mask_weight: NonNegativeFloat = Field(5.0, allow_inf_nan=False, description="of cross-entropy on points")
    dice_weight: NonNegativeFloat = Field(5.0, allow_inf_nan=False, description="of the Dice loss on points")
    no_object_weight: PositiveFloat = Field(
        0.1, allow_inf_nan=False, description="of the class 'no object' in the class loss"
    )
    loss_points: PositiveInt = Field(12544, description="points per mask, in matching and in losses")
    consistency_reduction: Literal["mean", "sum"] = Field(
        "mean", description="over the pairs of a clip (equation 7: sum)"
    )
    consistency_chunk: PositiveInt | None = Field(
        5, description="frames beyond which consistency does not look: 10-second clips count as two"
    )
    consistency_gradient: Literal["both", "distance"] = Field(
        "both", description="whether gradients pass the adaptive weight, too, or the distance alone"
    )

    @classmethod
    def of(cls, options: Mapping[str, Any], task: Task, variant: str) -> Self:
        """Options from keywords, laid on a variant's defaults.

        Raises:
            UsageError: one is unknown, out of range, or without effect beside the others.
        """
        parsed = cls.parse({**defaults(task, variant), **options}, "the options of combo")
        for names, reason in parsed._idle(task):
            for name in options:
                if name in names:
                    raise UsageError(f"The option {name} has no effect, because {reason}; leave it out.")
        return parsed

    def _idle(self, task: Task) -> Iterator[tuple[tuple[str, ...], str]]:
        """Names of options without effect, and why."""
        fused = (
            "fusion_heads", "fusion_dropout", "fusion_norm", "normed_residual", "fusion_level_embedding",
            "fusion_positions", "fusion_gamma", "visual_softmax", "attention_limit",
        )  # fmt: skip
        if not self.use_maskige:
            yield ("shared_encoder", "channel_weight"), "use_maskige: false leaves no maskiges"
        if self.fusion == "none":
            yield fused, "fusion: none leaves no fusion"
        if self.fusion == "audio":
            yield ("visual_softmax",), "fusion: audio puts no sound into pixels"
        if self.fusion == "visual" and self.visual_softmax == "sounds":
            yield ("attention_limit",), "a softmax over a frame's only sound is 1 whatever the logits"
        if not self.fusion_norm:
            yield ("normed_residual",), "fusion_norm: false normalises nothing"
        if task.semantic:
            yield ("object_score",), f"{task.name} is predicted by its class scores"
        if not self.consistency_weight:
            names = ("consistency_reduction", "consistency_chunk", "consistency_gradient")
            yield names, "consistency_weight is 0"


def defaults(task: Task, variant: str) -> dict[str, Any]:
    """What a variant sets otherwise than the fields' own defaults."""
    if variant == "released":
        return {}
    return {**PAPER, **({"consistency_weight": PAPER_SEMANTIC_CONSISTENCY} if task.semantic else {})}
