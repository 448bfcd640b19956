"""What can be changed about the network, with the released values as defaults. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt

from avsbench_harness.errors import UsageError
from avsbench_harness.schema import Schema
from avsbench_harness.tasks import Task

#: Groups of every group normalisation, and so the step of ``dim``.
GROUPS = 32


class Options(Schema):
    """Build options of AVSegFormer; the defaults are the released configuration."""

    queries: PositiveInt = 300
    learnable_queries: bool = Field(True, description="add a second learned set to the generator's queries")
    dim: PositiveInt = Field(256, multiple_of=GROUPS, description="channels of tokens, queries, mask feature")
    encoder_layers: PositiveInt = Field(6, description="deformable layers over the coarser feature maps")
    decoder_layers: PositiveInt = Field(6, description="layers that read pixels into the queries")
    generator_layers: PositiveInt = Field(6, description="layers that bring the sound into the queries")
    ffn_dim: PositiveInt = Field(2048, multiple_of=2, description="hidden width; the generator has half")
    mask_mlp_dim: PositiveInt = Field(2048, description="hidden width of the MLP over the queries' answers")
    mask_channels: PositiveInt = Field(128, multiple_of=4, description="before upsampling; a quarter after")
    dropout: float = Field(0.1, ge=0, lt=1, description="in encoder and decoder")
    loss: Literal["dice", "bce"] = Field("dice", description="s4 and ms3; avss has cross-entropy")
    mix_weight: NonNegativeFloat = Field(0.1, allow_inf_nan=False, description="weight of the mixing loss")
    pretrained: bool | Path = Field(False, description="ImageNet weights for the backbone, or their file")
    drop_path_rate: float | None = Field(
        None, ge=0, lt=1, description="stochastic depth; None: 0.1 for pvt as released, else timm's default"
    )

    @classmethod
    def of(cls, options: Mapping[str, Any], task: Task) -> Self:
        """Options from keywords.

        Raises:
            UsageError: one is unknown, out of range, or without effect on the task.
        """
        parsed = cls.parse(options, "the options of avsegformer")
        if task.semantic and "loss" in parsed.model_fields_set:
            raise UsageError(
                f"The option loss has no effect on {task.name}, which is trained with cross-entropy; "
                "leave it out."
            )
        return parsed
