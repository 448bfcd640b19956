"""Build options of AQFormer; the defaults are the paper's, or chosen where the paper gives none.

The model card lists which are which. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveInt

from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.options import BuildOptions, Unused
from avsbench_harness.tasks import Task

#: Groups of every group normalisation; ``dim`` is a multiple of it.
GROUPS = 32
#: Scales of the visual features as numbered in the paper, coarsest first: strides 32, 16, 8 and 4.
SCALES = (1, 2, 3, 4)


def _ascending(scales: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(scales)) < len(scales):
        raise ValueError("no scale may be named twice")
    return tuple(sorted(scales))


#: Defaults with the option ``literal``.
LITERAL: Mapping[str, Any] = {"output_norm": False, "remap": "softmax", "similarity_reduction": "sum"}

Weight = Annotated[NonNegativeFloat, Field(allow_inf_nan=False)]
Scales = Annotated[tuple[Annotated[int, Field(ge=SCALES[0], le=SCALES[-1])], ...], AfterValidator(_ascending)]


class Options(BuildOptions):
    """Build options of AQFormer."""

    method = "aqformer"

    queries: Literal["audio", "vanilla"] = Field(
        "audio", description="initial object queries: their frame's audio, or learned vectors (Table 2a)"
    )
    query_frames: Literal["all", "own"] = Field(
        "all", description="frames whose pixels a query attends to; own: Audio Query† (Table 2a)"
    )
    abti: Scales = Field(SCALES, description="scales with ABTI, 1 coarsest to 4 finest (Tables 2b and 2c)")
    literal: bool = Field(False, description="the paper's equations without additions, as the card lists")
    output_norm: bool = Field(
        True, description="LayerNorm of the queries and a scale of 1/sqrt(dim) in equation 6; false: neither"
    )
    remap: Literal["peak", "softmax"] = Field(
        "peak", description="weights of equation 11: those of equation 9, or relative to the frame's largest"
    )
    similarity_loss: bool = Field(True, description="equations 7 and 8 (Table 2b)")
    similarity_reduction: Literal["mean", "sum"] = Field(
        "mean", description="reduction of equation 7 over layers and pairs of frames; the paper's is sum"
    )
    stages: PositiveInt = Field(3, description="N, stages of one decoder layer per coarser scale (Table 2d)")

    dim: PositiveInt = Field(256, multiple_of=GROUPS, description="C_f, channels of feature maps and queries")
    heads: PositiveInt = Field(8, description="heads of every attention")
    ffn_dim: PositiveInt = Field(2048, description="hidden width of the decoder's feed-forward blocks")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout in the decoder's layers")
    encoder_layers: PositiveInt = Field(6, description="deformable layers of the pixel decoder")
    encoder_ffn_dim: PositiveInt = Field(1024, description="hidden width of their feed-forward blocks")
    abti_dim: PositiveInt = Field(256, description="C_b, channels of ABTI's object features")
    audio_softmax: Literal["audio", "pixels"] = Field(
        "audio", description="axis of the softmax in equation 1; a frame has one audio token"
    )
    fusion_dim: PositiveInt = Field(256, description="C_m, channels of queries and keys in equation 1")

    bce_weight: Weight = Field(1.0, description="lambda_bce")
    dice_weight: Weight = Field(1.0, description="lambda_dice")
    similarity_weight: Weight = Field(1.0, description="lambda_sim")
    class_weight: Weight = Field(1.0, description="weight of the class head's loss (avss)")

    @classmethod
    def defaults(cls, options: Mapping[str, Any], task: Task, variant: str) -> Mapping[str, Any]:
        """Return the defaults in place of those of the fields."""
        return LITERAL if options.get("literal") is True else {}

    def check(self, task: Task) -> None:
        """Refuse numbers of heads that do not divide the channels."""
        for name in ("dim", "abti_dim"):
            if getattr(self, name) % self.heads:
                raise UsageError(
                    f"The option heads of aqformer is {self.heads}, which does not divide "
                    f"{name} {getattr(self, name)}."
                )

    def unused(self, task: Task) -> Iterator[Unused]:
        """Yield options without effect, and the reason."""
        if not self.abti:
            yield ("abti_dim", "remap"), "without abti on some scale"
        if not self.similarity_loss:
            yield ("similarity_weight", "similarity_reduction"), "without similarity_loss"
        if self.audio_softmax == "audio":
            yield ("fusion_dim",), "without audio_softmax pixels: the softmax over one audio token is 1"
        if not task.semantic:
            yield ("class_weight",), "without classes, which only avss has"
