"""What can be changed about the network, with the released values as defaults. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from avsbench_harness.errors import UsageError
from avsbench_harness.schema import Schema


class Options(Schema):
    """Build options of COMBO; the defaults are the released configuration."""

    queries: PositiveInt = 100
    dim: PositiveInt = Field(256, multiple_of=32, description="channels of maps, queries, mask features")
    encoder_layers: PositiveInt = Field(6, description="deformable layers of the pixel decoder")
    encoder_ffn_dim: PositiveInt = Field(1024, description="hidden width in them")
    decoder_layers: PositiveInt = Field(9, description="masked-attention layers")
    ffn_dim: PositiveInt = Field(2048, description="hidden width in them")
    audio_mlp_dim: PositiveInt = Field(4096, description="hidden width between the sound and the queries")
    fusion_dropout: float = Field(0.1, ge=0, lt=1, description="on the attention of the bilateral fusion")
    use_maskige: bool = Field(True, description="false: no maskiges, no Siam-Encoder (paper table 3)")
    shared_encoder: bool = Field(False, description="one backbone for images and maskiges (paper table 4)")
    pretrained: bool | Path = Field(False, description="ImageNet weights for the backbones, or their file")
    drop_path_rate: float | None = Field(
        None, ge=0, lt=1, description="stochastic depth; None: 0.1 for pvt as released, else timm's default"
    )

    # Where the published code does what the paper does not say; the defaults are the published behaviour.
    frozen_norm: bool = Field(True, description="batch norms never learn, neither statistics nor affine")
    audio_pairing: Literal["scrambled", "own"] = Field(
        "scrambled", description="scrambled: queries hear other frames of the batch; own: their frame"
    )
    visual_softmax: Literal["positions", "sounds"] = Field(
        "positions", description="axis over which pixels weigh the sound (paper equation 4: sounds)"
    )
    normed_residual: bool = Field(
        True, description="the fusion adds to the layer-normed inputs rather than to the inputs"
    )
    attention_limit: PositiveFloat | None = Field(
        50_000.0, description="attention logits of the fusion are clamped to this magnitude"
    )

    class_weight: NonNegativeFloat = Field(2.0, allow_inf_nan=False)
    mask_weight: NonNegativeFloat = Field(5.0, allow_inf_nan=False, description="of cross-entropy on points")
    dice_weight: NonNegativeFloat = Field(5.0, allow_inf_nan=False)
    no_object_weight: PositiveFloat = Field(0.1, description="of the class 'no object' in the class loss")
    loss_points: PositiveInt = Field(12544, description="points per mask, in matching and in losses")
    consistency_weight: NonNegativeFloat = Field(
        10.0, allow_inf_nan=False, description="of inter-frame consistency (paper: 5 for avss)"
    )
    consistency_chunk: PositiveInt | None = Field(
        5, description="frames beyond which consistency does not look: 10-second clips count as two"
    )

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Options from keywords.

        Raises:
            UsageError: one is unknown, out of range, or without effect beside the others.
        """
        parsed = cls.parse(options, "the options of combo")
        if parsed.shared_encoder and not parsed.use_maskige:
            raise UsageError(
                "The option shared_encoder has no effect with use_maskige: false; leave one of them out."
            )
        return parsed
