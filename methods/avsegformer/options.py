"""Build options of AVSegFormer, and the defaults of each variant. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.options import BuildOptions, Unused
from avsbench_harness.tasks import Task

#: Groups of every group normalisation; ``dim`` is a multiple of it.
GROUPS = 32

#: Defaults of the first public code, which printed the tables of arXiv v1; the others are as released.
ARXIV: dict[str, Any] = {
    "audio_queries": "repeated",  # section 3.5 of arXiv v1
    "mask_reformer": "query_mixed",  # section 3.6
    "mix_weight": 0.0,  # equation 4 has the intermediate masks instead
}
#: Defaults of arXiv v1: its equations, and the first public code where they are silent.
PAPER: dict[str, Any] = {
    **ARXIV,
    "mixer_sigmoid": False,  # equation 2
    "mixer_residual": True,  # equation 2
    "classifier": "linear",  # equation 3
}


class Options(BuildOptions):
    """Build options of AVSegFormer; the defaults are the released configuration for s4 and ms3."""

    method = "avsegformer"
    variant_defaults: ClassVar = {"arxiv": ARXIV, "paper": PAPER}

    queries: PositiveInt = Field(300, description="the paper's N_query (table 2a)")
    learnable_queries: bool = Field(True, description="add learned queries to the audio queries (table 2b)")
    audio_queries: Literal["generated", "repeated"] = Field(
        "generated",
        description="repeated: the audio token itself; generated: learned queries that attend to it",
    )
    dim: PositiveInt = Field(
        256, multiple_of=GROUPS, description="channels of tokens, queries and mask feature"
    )
    encoder_layers: PositiveInt = Field(6, description="deformable layers over the coarser feature maps")
    decoder_layers: PositiveInt = Field(
        6, description="layers of the query decoder, which attends to the pixels"
    )
    generator_layers: PositiveInt = Field(
        6, description="layers of the query generator, which attends to the audio"
    )
    ffn_dim: PositiveInt = Field(2048, multiple_of=2, description="hidden width; the generator has half")
    mixer: Literal["none", "cross_attention", "channel_attention"] = Field(
        "channel_attention", description="how the audio modulates the mask feature (table 2c)"
    )
    mixer_sigmoid: bool = Field(True, description="sigmoid on the mixer's channel weights")
    mixer_residual: bool = Field(False, description="add the weighted mask feature to the unweighted one")
    mask_mlp_dim: PositiveInt = Field(
        2048, description="hidden width of the MLP over the products of queries and pixels"
    )
    classifier: Literal["convolutions", "linear"] = Field(
        "convolutions", description="from mask feature to mask: upsampling between convolutions, or one layer"
    )
    mask_channels: PositiveInt = Field(128, multiple_of=4, description="before upsampling; a quarter after")
    dropout: float = Field(0.1, ge=0, lt=1, description="in encoder and decoder")
    loss: Literal["dice", "bce", "cross_entropy"] = Field(
        "dice", description="loss of the predicted mask and of the intermediate masks"
    )
    mask_reformer: Literal["none", "attention_only", "query_mixed"] = Field(
        "none", description="how intermediate masks are made in training (table 2d)"
    )
    inter_weight: PositiveFloat = Field(
        0.1, allow_inf_nan=False, description="lambda, weight of the intermediate mask loss"
    )
    mix_weight: NonNegativeFloat = Field(
        0.1, allow_inf_nan=False, description="weight of the mixing loss; 0: no such term"
    )

    @classmethod
    def defaults(cls, options: Mapping[str, Any], task: Task, variant: str) -> Mapping[str, Any]:
        """Return the variant's defaults; both versions of the code train avss with cross-entropy."""
        values = dict(super().defaults(options, task, variant))
        if variant != "paper" and task.semantic:
            values["loss"] = "cross_entropy"
        return values

    def check(self, task: Task) -> None:
        """Refuse losses of other tasks."""
        allowed = ("dice", "cross_entropy") if task.semantic else ("dice", "bce")
        if self.loss not in allowed:
            raise UsageError(
                f"The option loss is '{self.loss}', but {task.name} is trained with {' or '.join(allowed)}."
            )

    def unused(self, task: Task) -> Iterator[Unused]:
        """Yield options without effect, and the reason."""
        if self.mixer != "channel_attention":
            yield ("mixer_sigmoid", "mixer_residual"), f"with mixer: {self.mixer}"
        if self.audio_queries == "repeated":
            yield ("generator_layers",), "with audio_queries: repeated"
        if self.mask_reformer == "none":
            yield ("inter_weight",), "with mask_reformer: none"
            if self.classifier == "linear":
                yield ("mask_channels",), "with classifier: linear and mask_reformer: none"
