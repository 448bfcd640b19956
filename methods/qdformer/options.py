"""Build options of QDFormer; the defaults are the paper's, or chosen where the paper gives none.

The model card lists which are which. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.options import BuildOptions, Unused
from avsbench_harness.tasks import Task

#: Groups of every group normalisation; ``dim`` is a multiple of it.
GROUPS = 32


class Options(BuildOptions):
    """Build options of QDFormer."""

    method = "qdformer"

    decomposition: Literal["none", "continuous", "quantized"] = Field(
        "quantized", description="none is Table 2's baseline, continuous its non-Q-based SD"
    )
    recombination: bool = Field(True, description="AVSR: modulate the visual features by equation 5")
    calibration: bool = Field(
        True, description="LC: tokens per frame; else every frame uses the tokens of its clip"
    )

    tokens: PositiveInt = Field(5, description="N, semantic tokens into which the audio is decomposed")
    codebook_size: PositiveInt = Field(128, description="K, about the number of sound categories")
    shared_prototypes: bool = Field(
        True, description="one set of prototypes for clip and frames, else one each"
    )
    filter_tokens: Literal["quantized", "continuous"] = Field(
        "quantized", description="clip tokens from which the filters of equation 5 are computed"
    )
    codebook_init: Literal["all_tokens", "clip_tokens", "normal"] = Field(
        "all_tokens", description="initialise codes with tokens of the first training step, or at random"
    )
    revive_dead_codes: bool = Field(False, description="reset unused codes to clip tokens")
    dead_after: PositiveInt = Field(100, description="training steps without use after which a code is dead")

    dim: PositiveInt = Field(
        256, multiple_of=GROUPS, description="channels of tokens, codes and feature maps"
    )
    heads: PositiveInt = Field(8, description="heads of every attention")
    ffn_dim: PositiveInt = Field(2048, description="hidden width of the feed-forward blocks")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout in the transformers")
    encoder_layers: PositiveInt = Field(4, description="layers of the visual encoder")
    semantic_layers: PositiveInt = Field(2, description="layers of each audio semantic decoder")
    decoder_layers: PositiveInt = Field(4, description="layers of the mask decoder")
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

    score_threshold: float = Field(
        0.3, gt=0, lt=1, description="class times mask probability above which a pixel sounds"
    )

    @property
    def quantized(self) -> bool:
        """Whether there is a codebook."""
        return self.decomposition == "quantized"

    @classmethod
    def defaults(cls, options: Mapping[str, Any], task: Task, variant: str) -> Mapping[str, Any]:
        """Return the defaults; without a decomposition there is neither recombination nor calibration."""
        if options.get("decomposition") == "none":
            return {"recombination": False, "calibration": False}
        return {}

    def check(self, task: Task) -> None:
        """Refuse options that contradict each other."""
        if self.dim % self.heads:
            raise UsageError(
                f"The option heads of qdformer is {self.heads}, which does not divide dim {self.dim}."
            )
        if self.decomposition == "continuous" and self.calibration and not self.recombination:
            raise UsageError(
                "Without recombination and quantisation the clip's tokens of qdformer reach nothing; set the "
                "option calibration to false, too."
            )

    def unused(self, task: Task) -> Iterator[Unused]:
        """Yield options without effect, and the reason; switching such an option off is not an error."""
        on = [name for name in type(self).model_fields if getattr(self, name) is not False]
        quantizer = ("codebook_size", "codebook_init", "revive_dead_codes", "dead_after", "quant_weight",
                     "commit_weight")  # fmt: skip
        for names, used, needed in (
            (
                ("recombination", "calibration", "semantic_layers"),
                self.decomposition != "none",
                "a decomposition",
            ),
            (("shared_prototypes",), self.calibration, "calibration"),
            (("filter_tokens",), self.quantized and self.recombination, "quantisation and recombination"),
            (quantizer, self.quantized, "decomposition quantized"),
        ):
            if not used:
                yield (name for name in names if name in on), f"without {needed}"
