"""What can be changed about the network; the defaults are the paper's, or, where it is silent, chosen here.

The model card says of each which of the two it is. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt

from avsbench_harness.errors import UsageError
from avsbench_harness.schema import Schema

#: Groups of every group normalisation, and so the step of ``dim``.
GROUPS = 32


class Options(Schema):
    """Build options of QDFormer."""

    decomposition: Literal["none", "continuous", "quantized"] = Field(
        "quantized", description="none is Table 2's baseline, continuous its non-Q-based SD"
    )
    recombination: bool = Field(True, description="AVSR: modulate the visual features by equation 5")
    calibration: bool = Field(True, description="LC: tokens of every frame; else those of the clip for all")

    tokens: PositiveInt = Field(5, description="N, semantic tokens into which the sound is decomposed")
    codebook_size: PositiveInt = Field(128, description="K, about the number of sound categories")
    shared_prototypes: bool = Field(True, description="one set for clip and frames, else one for each")
    filter_tokens: Literal["quantized", "continuous"] = Field(
        "quantized", description="from which clip tokens equation 5's filters are learned"
    )
    codebook_init: Literal["all_tokens", "clip_tokens", "normal"] = Field(
        "all_tokens", description="codes start as tokens of the first training step, or as random numbers"
    )
    revive_dead_codes: bool = Field(False, description="move codes that went unused onto clip tokens")
    dead_after: PositiveInt = Field(100, description="training steps without use after which a code is dead")

    dim: PositiveInt = Field(256, multiple_of=GROUPS, description="channels of tokens, codes and maps")
    heads: PositiveInt = Field(8, description="of all attention")
    ffn_dim: PositiveInt = Field(2048, description="hidden width of the feed-forward blocks")
    dropout: float = Field(0.1, ge=0, lt=1, description="in the transformers")
    encoder_layers: PositiveInt = Field(4, description="of the visual encoder")
    semantic_layers: PositiveInt = Field(2, description="of each audio semantic decoder")
    decoder_layers: PositiveInt = Field(4, description="of the mask decoder")
    query_positions: bool = Field(True, description="a learned position per token in the mask decoder")

    quant_weight: NonNegativeFloat = Field(
        0.001, allow_inf_nan=False, description="lambda_quant, of equation 9 in equation 8"
    )
    commit_weight: NonNegativeFloat = Field(
        0.25, allow_inf_nan=False, description="lambda_com, of the second and third term of equation 9"
    )
    bce_weight: NonNegativeFloat = Field(2.0, allow_inf_nan=False, description="lambda_mask of BCE")
    dice_weight: NonNegativeFloat = Field(5.0, allow_inf_nan=False, description="lambda_mask of Dice")
    class_weight: NonNegativeFloat = Field(2.0, allow_inf_nan=False, description="lambda_cls")
    l1_weight: NonNegativeFloat = Field(5.0, allow_inf_nan=False, description="lambda_box of L1")
    giou_weight: NonNegativeFloat = Field(2.0, allow_inf_nan=False, description="lambda_box of GIoU")

    score_threshold: float = Field(0.3, gt=0, lt=1, description="class times mask above which a pixel sounds")
    pretrained: bool | Path = Field(False, description="ImageNet weights for the backbone, or their file")
    drop_path_rate: float | None = Field(
        None, ge=0, lt=1, description="stochastic depth of the backbone; None: timm's default"
    )

    @property
    def quantized(self) -> bool:
        """Whether there is a codebook."""
        return self.decomposition == "quantized"

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Options from keywords.

        What only a decomposition has, or only its quantisation, is off without it, and may not be asked for.

        Raises:
            UsageError: one is unknown, out of range, or without effect in this combination.
        """
        parsed = cls.parse(options, "the options of qdformer")
        if parsed.dim % parsed.heads:
            raise UsageError(
                f"The option heads of qdformer is {parsed.heads}, which does not divide dim {parsed.dim}."
            )
        for name, needed in parsed._idle().items():
            if name in parsed.model_fields_set and getattr(parsed, name) is not False:
                raise UsageError(
                    f"The option {name} of qdformer has no effect without {needed}; leave it out."
                )
        if parsed.decomposition == "continuous" and parsed.calibration and not parsed.recombination:
            raise UsageError(
                "Without recombination and quantisation the clip's tokens of qdformer reach nothing; set the "
                "option calibration to false, too."
            )
        if parsed.decomposition == "none":
            parsed = parsed.model_copy(update={"recombination": False, "calibration": False})
        return parsed

    def _idle(self) -> dict[str, str]:
        """Options that have no effect beside the others, and what they would need."""
        idle: dict[str, str] = {}
        if self.decomposition == "none":
            needed = "a decomposition"
            idle |= dict.fromkeys(("recombination", "calibration", "semantic_layers"), needed)
        if not (self.calibration and self.decomposition != "none"):
            idle["shared_prototypes"] = "calibration"
        if not (self.quantized and self.recombination):
            idle["filter_tokens"] = "quantisation and recombination"
        if not self.quantized:
            names = (
                "codebook_size",
                "codebook_init",
                "revive_dead_codes",
                "dead_after",
                "quant_weight",
                "commit_weight",
            )
            idle |= dict.fromkeys(names, "decomposition quantized")
        return idle
