"""Build options of COMBO, and the defaults of each variant. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from avsbench_harness.recipe.options import BuildOptions, Unused
from avsbench_harness.tasks import Task

#: Channels of the fusion, over all heads.
FUSION_DIM = 256

#: Defaults of the paper that differ from the released configuration. Sections, equations and the choices made
#: where the paper leaves a value open are in the model card.
PAPER: Mapping[str, Any] = {
    "channel_weight": "linear",
    "fusion_heads": 1,
    "fusion_norm": False,
    "fusion_level_embedding": False,
    "fusion_positions": "projections",
    "fusion_gamma": None,
    "visual_softmax": "sounds",
    "fusion_overwrites": False,
    "attention_limit": None,
    "audio_pairing": "own",
    "consistency_reduction": "sum",
    "consistency_chunk": None,
    "object_score": "share",
}
#: Weight of inter-frame consistency for avss in the paper (section 4.2); for other tasks as released.
PAPER_SEMANTIC_CONSISTENCY = 5.0


class Options(BuildOptions):
    """Build options of COMBO; the defaults are the released configuration."""

    method = "combo"
    variant_defaults: ClassVar = {"paper": PAPER}

    queries: PositiveInt = Field(100, description="object queries of a frame")
    dim: PositiveInt = Field(256, multiple_of=32, description="channels of maps, queries and mask features")
    encoder_layers: PositiveInt = Field(6, description="deformable layers of the pixel decoder")
    encoder_ffn_dim: PositiveInt = Field(1024, description="hidden width of their feed-forward blocks")
    decoder_layers: PositiveInt = Field(9, description="masked-attention layers")
    ffn_dim: PositiveInt = Field(2048, description="hidden width of their feed-forward blocks")
    audio_mlp_dim: PositiveInt = Field(4096, description="hidden width of the MLP from audio to queries")
    frozen_norm: bool = Field(True, description="freeze the statistics and the affine map of batch norms")

    # Options of the paper's ablations.
    use_maskige: bool = Field(True, description="false: no maskiges, no Siam-Encoder (Table 3)")
    shared_encoder: bool = Field(False, description="one backbone for images and maskiges (Table 4)")
    fusion: Literal["bilateral", "visual", "audio", "none"] = Field(
        "bilateral",
        description="both directions, audio into pixels only, pixels into audio only, or none (Table 5)",
    )
    audio_queries: Literal["add", "all"] = Field(
        "add", description="the audio is added to learned queries, or replaces them (Table 6)"
    )
    consistency_weight: NonNegativeFloat = Field(
        10.0, allow_inf_nan=False, description="weight of inter-frame consistency (Table 7)"
    )

    # Differences between the paper and the published code; the defaults are the published code.
    channel_weight: Literal["excitation", "linear"] = Field(
        "excitation", description="map from a channel's mean to its weight (equation 3: linear)"
    )
    fusion_heads: Literal[1, 2, 4, 8, 16] = Field(8, description="attention heads of the fusion")
    fusion_dropout: float = Field(
        0.1, ge=0, lt=1, description="dropout on the attention weights of the fusion"
    )
    fusion_norm: bool = Field(True, description="layer normalisation of the fusion's inputs")
    normed_residual: bool = Field(
        True, description="residual connections start from the normalised inputs instead of the inputs"
    )
    fusion_level_embedding: bool = Field(
        True, description="add a learned vector to the pixels before the fusion"
    )
    fusion_positions: Literal["logits", "projections"] = Field(
        "logits", description="position codes are added to queries and keys, or also to values"
    )
    fusion_gamma: float | None = Field(
        1e-4,
        allow_inf_nan=False,
        description="initial value of the learned factors on the fusion's output; None: no factors",
    )
    visual_softmax: Literal["positions", "sounds"] = Field(
        "positions", description="axis of the softmax in the audio-to-pixel fusion (equation 4: sounds)"
    )
    fusion_overwrites: bool = Field(
        True, description="fusion: audio uses the updated pixels as well, which makes it bilateral"
    )
    attention_limit: PositiveFloat | None = Field(
        50_000.0, description="clamp the attention logits of the fusion to this magnitude; None: no limit"
    )
    audio_pairing: Literal["scrambled", "own"] = Field(
        "scrambled", description="queries use the audio of other frames of the batch, or of their own"
    )
    object_score: Literal["softmax", "share"] = Field(
        "softmax",
        description="probability of sound from the scores of sound and background: softmax of the two, or "
        "the share of sound in their sum",
    )

    class_weight: NonNegativeFloat = Field(2.0, allow_inf_nan=False, description="weight of the class loss")
    mask_weight: NonNegativeFloat = Field(5.0, allow_inf_nan=False, description="weight of BCE on points")
    dice_weight: NonNegativeFloat = Field(5.0, allow_inf_nan=False, description="weight of Dice on points")
    no_object_weight: PositiveFloat = Field(
        0.1, allow_inf_nan=False, description="weight of 'no object' in the class loss"
    )
    loss_points: PositiveInt = Field(12544, description="points per mask, in matching and in the losses")
    consistency_reduction: Literal["mean", "sum"] = Field(
        "mean", description="over the pairs of a clip (equation 7: sum)"
    )
    consistency_chunk: PositiveInt | None = Field(
        5, description="frames per chunk, between which there is no consistency loss; None: whole clips"
    )
    consistency_gradient: Literal["both", "distance"] = Field(
        "both", description="gradients flow through distance and adaptive weight, or through distance only"
    )

    @classmethod
    def defaults(cls, options: Mapping[str, Any], task: Task, variant: str) -> Mapping[str, Any]:
        """Return the variant's defaults.

        The paper weights consistency by 5 for avss (section 4.2). The published fusion into pixels alone is
        another module, whose softmax runs over the sounds.
        """
        values = dict(super().defaults(options, task, variant))
        if options.get("fusion") == "visual":
            values["visual_softmax"] = "sounds"
        if variant == "paper" and task.semantic:
            values["consistency_weight"] = PAPER_SEMANTIC_CONSISTENCY
        return values

    def unused(self, task: Task) -> Iterator[Unused]:
        """Yield options without effect, and the reason."""
        fused = (
            "fusion_heads", "fusion_dropout", "fusion_norm", "normed_residual", "fusion_positions",
            "fusion_gamma", "visual_softmax", "attention_limit",
        )  # fmt: skip
        if not self.use_maskige:
            yield ("shared_encoder", "channel_weight"), "with use_maskige: false"
        if self.fusion == "none":
            yield fused, "with fusion: none"
        if self.fusion != "audio":
            yield ("fusion_overwrites",), f"with fusion: {self.fusion}"
        elif not self.fusion_overwrites:
            yield ("visual_softmax",), "with fusion: audio, which adds no audio to the pixels"
        if self.fusion == "visual" and self.visual_softmax == "sounds":
            yield ("attention_limit",), "because a softmax over a frame's only audio token is always 1"
        if not self.fusion_norm:
            yield ("normed_residual",), "with fusion_norm: false"
        if task.semantic:
            yield ("object_score",), f"on {task.name}, which is predicted by its class scores"
        if not self.consistency_weight:
            names = ("consistency_reduction", "consistency_chunk", "consistency_gradient")
            yield names, "with consistency_weight: 0"
