"""Build options of QDFormer; the defaults are the paper's, or chosen where the paper gives none.

The model card lists which are which. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.options import BuildOptions, Unused
from avsbench_harness.tasks import Task

#: Groups of every group normalisation; ``dim`` is a multiple of it.
GROUPS = 32

#: Defaults with the option ``literal``.
LITERAL: Mapping[str, Any] = {
    "prototypes": "content", "local_init": "random", "codebook_update": "loss", "codebook_lr_scale": None,
    "codebook_init": "all_tokens", "unquantized_steps": 0, "revive_dead_codes": False, "audio_dropout": None,
    "auxiliary_losses": False,
}  # fmt: skip


class Options(BuildOptions):
    """Build options of QDFormer."""

    method = "qdformer"

    decomposition: Literal["none", "continuous", "quantized"] = Field(
        "quantized", description="none is Table 2's baseline, continuous its non-Q-based SD"
    )
    recombination: bool = Field(True, description="AVSR: modulate the visual features by equation 5")
    calibration: bool | Literal["local_updates"] = Field(
        True,
        description="LC: tokens per frame; local_updates: they update the codebook, too; false: every frame "
        "uses the tokens of its clip",
    )
    literal: bool = Field(
        False, description="the paper's text without additions to its codebook learning, as the card lists"
    )

    tokens: PositiveInt = Field(5, description="N, semantic tokens into which the audio is decomposed")
    codebook_size: PositiveInt = Field(128, description="K, about the number of sound categories")
    shared_prototypes: bool = Field(
        True, description="one set of prototypes for clip and frames, else one each"
    )
    filter_tokens: Literal["quantized", "continuous"] = Field(
        "quantized", description="clip tokens from which the filters of equation 5 are computed"
    )
    prototypes: Literal["content", "positions"] = Field(
        "content", description="initial tokens of the audio semantic decoders, or positions of their queries"
    )
    local_init: Literal["random", "global"] = Field(
        "global", description="initial weights of the local decoder: random, or the global decoder's"
    )

    codebook_update: Literal["loss", "ema"] = Field(
        "ema", description="the first term of equation 9, or moving averages of each code's tokens"
    )
    codebook_lr_scale: PositiveFloat | None = Field(
        None, description="multiple of lr for the codebook, without decay; None: as the other parameters"
    )
    ema_decay: float = Field(0.9, ge=0, lt=1, description="of the moving averages of codebook_update ema")
    codebook_init: Literal["all_tokens", "clip_tokens", "kmeans", "normal"] = Field(
        "kmeans",
        description="initial codes: tokens of the first quantised step, centres of clip tokens, or random",
    )
    unquantized_steps: NonNegativeInt = Field(100, description="first training steps, without quantisation")
    revive_dead_codes: bool = Field(True, description="reset unused codes to clip tokens")
    dead_after: PositiveInt = Field(100, description="training steps without use after which a code is dead")

    dim: PositiveInt = Field(
        256, multiple_of=GROUPS, description="channels of tokens, codes and feature maps"
    )
    heads: PositiveInt = Field(8, description="heads of every attention")
    ffn_dim: PositiveInt = Field(2048, description="hidden width of the feed-forward blocks")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout in the transformers")
    audio_dropout: float | None = Field(
        0.0, ge=0, lt=1, description="dropout in fusion and decomposition; None: as dropout"
    )
    encoder_layers: PositiveInt = Field(4, description="layers of the visual encoder")
    semantic_layers: PositiveInt = Field(2, description="layers of each audio semantic decoder")
    decoder_layers: PositiveInt = Field(4, description="layers of the mask decoder")
    query_positions: bool = Field(True, description="a learned position per token in the mask decoder")
    auxiliary_losses: bool = Field(False, description="equation 10 for every layer of the mask decoder")

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

    @property
    def averaged(self) -> bool:
        """Whether the codes are moving averages, not parameters."""
        return self.codebook_update == "ema"

    @classmethod
    def defaults(cls, options: Mapping[str, Any], task: Task, variant: str) -> Mapping[str, Any]:
        """Return the defaults; without a decomposition there is neither recombination nor calibration."""
        literal = LITERAL if options.get("literal") is True else {}
        if options.get("decomposition") == "none":
            return {**literal, "recombination": False, "calibration": False}
        return literal

    def completed(self, task: Task) -> Self:
        """Return the options with the dropout of fusion and decomposition."""
        if self.audio_dropout is not None:
            return self
        return self.model_copy(update={"audio_dropout": self.dropout})

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
        quantizer = ("codebook_size", "codebook_update", "codebook_init", "unquantized_steps",
                     "revive_dead_codes", "dead_after", "quant_weight", "commit_weight")  # fmt: skip
        for names, used, needed in (
            (
                ("recombination", "calibration", "semantic_layers", "prototypes"),
                self.decomposition != "none",
                "a decomposition",
            ),
            (("shared_prototypes", "local_init"), self.calibration, "calibration"),
            (("filter_tokens",), self.quantized and self.recombination, "quantisation and recombination"),
            (quantizer, self.quantized, "decomposition quantized"),
            (("codebook_lr_scale",), self.quantized and not self.averaged, "codebook_update loss"),
            (("ema_decay",), self.quantized and self.averaged, "codebook_update ema"),
        ):
            if not used:
                yield (name for name in names if name in on), f"without {needed}"
