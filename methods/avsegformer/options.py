"""What can be changed about the network, and what the variants are: sets of defaults. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from avsbench_harness.errors import UsageError
from avsbench_harness.schema import Schema
from avsbench_harness.tasks import Task

#: Groups of every group normalisation, and so the step of ``dim``.
GROUPS = 32

#: What the paper describes, where it differs from the released code.
PAPER: dict[str, Any] = {
    "audio_queries": "repeated",  # section 3.5
    "mixer_sigmoid": False,  # equation 2
    "mixer_residual": True,  # equation 2
    "classifier": "linear",  # equation 3
    "mask_reformer": "query_mixed",  # section 3.6
    "mix_weight": 0.0,  # equation 4 has the intermediate masks instead
}


class Options(Schema):
    """Build options of AVSegFormer; the defaults are the released configuration for s4 and ms3."""

    queries: PositiveInt = Field(300, description="the paper's N_query (table 2a)")
    learnable_queries: bool = Field(
        True, description="add learned queries to those from the sound (table 2b)"
    )
    audio_queries: Literal["generated", "repeated"] = Field(
        "generated", description="repeated: each is the sound; generated: another learned set that hears it"
    )
    dim: PositiveInt = Field(256, multiple_of=GROUPS, description="channels of tokens, queries, mask feature")
    encoder_layers: PositiveInt = Field(6, description="deformable layers over the coarser feature maps")
    decoder_layers: PositiveInt = Field(6, description="layers that read pixels into the queries")
    generator_layers: PositiveInt = Field(6, description="layers that bring the sound into generated queries")
    ffn_dim: PositiveInt = Field(2048, multiple_of=2, description="hidden width; the generator has half")
    mixer: Literal["none", "cross_attention", "channel_attention"] = Field(
        "channel_attention", description="how the sound changes the mask feature (table 2c)"
    )
    mixer_sigmoid: bool = Field(True, description="squash the mixer's channel weights into (0, 1)")
    mixer_residual: bool = Field(False, description="keep the unweighted mask feature beside the weighted")
    mask_mlp_dim: PositiveInt = Field(2048, description="hidden width of the MLP over the queries' answers")
    classifier: Literal["convolutions", "linear"] = Field(
        "convolutions", description="from mask feature to mask: upsampling between convolutions, or one layer"
    )
    mask_channels: PositiveInt = Field(128, multiple_of=4, description="before upsampling; a quarter after")
    dropout: float = Field(0.1, ge=0, lt=1, description="in encoder and decoder")
    loss: Literal["dice", "bce", "cross_entropy"] = Field("dice", description="of the predicted mask")
    mask_reformer: Literal["none", "attention_only", "query_mixed"] = Field(
        "none", description="what intermediate masks are made of in training (table 2d)"
    )
    inter_weight: PositiveFloat = Field(
        0.1, allow_inf_nan=False, description="lambda, weight of the intermediate mask loss"
    )
    mix_weight: NonNegativeFloat = Field(
        0.1, allow_inf_nan=False, description="weight of the mixing loss; 0: no such term"
    )
    pretrained: bool | Path = Field(False, description="ImageNet weights for the backbone, or their file")
    drop_path_rate: float | None = Field(
        None, ge=0, lt=1, description="stochastic depth; None: 0.1 for pvt, else timm's default"
    )

    @classmethod
    def of(cls, options: Mapping[str, Any], task: Task, variant: str) -> Self:
        """A variant's options, with the given ones in place of its defaults.

        Raises:
            UsageError: one is unknown, out of range, or without effect on the task or beside the others.
        """
        released = {"loss": "cross_entropy"} if task.semantic else {}
        defaults = {"paper": PAPER, "released": released}[variant]
        parsed = cls.parse({**defaults, **options}, "the options of avsegformer")
        parsed._check(set(options), task)
        return parsed

    def _check(self, given: set[str], task: Task) -> None:
        """Refuse what would be ignored."""
        allowed = ("dice", "cross_entropy") if task.semantic else ("dice", "bce")
        if self.loss not in allowed:
            raise UsageError(
                f"The option loss is '{self.loss}', but {task.name} is trained with {' or '.join(allowed)}."
            )
        for names, without, choice in (
            (("mixer_sigmoid", "mixer_residual"), self.mixer != "channel_attention", f"mixer: {self.mixer}"),
            (("generator_layers",), self.audio_queries == "repeated", "audio_queries: repeated"),
            (("mask_channels",), self.classifier == "linear", "classifier: linear"),
            (("inter_weight",), self.mask_reformer == "none", "mask_reformer: none"),
        ):
            idle = [name for name in names if name in given]
            if without and idle:
                raise UsageError(f"The option {idle[0]} has no effect with {choice}; leave one of them out.")
