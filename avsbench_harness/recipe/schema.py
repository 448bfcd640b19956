"""The recipe: everything that decides a training run. Imports no torch."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from avsbench_harness.recipe.augment import Augment
from avsbench_harness.schema import Schema
from avsbench_harness.tasks import Task

#: Resizing to the square network input; pad keeps the aspect ratio and fills right and bottom with zeros.
Fit: TypeAlias = Literal["squeeze", "crop", "pad"]


class BackboneRecipe(Schema):
    """The visual backbone's weights and how it is trained."""

    pretrained: bool = Field(True, description="ImageNet weights; without them the run refuses to start")
    freeze_epochs: int | Literal["all"] = Field(0, description="epochs for which its parameters stay")
    freeze_norm: bool = Field(False, description="keep its batch norms in evaluation mode while training")
    drop_path_rate: float | None = Field(None, ge=0, lt=1, description="stochastic depth; None: timm's")


class AudioRecipe(Schema):
    """The audio encoder; frozen where its weights are there, else trained with the model."""

    encoder: Literal["vggish", "compact"] = "vggish"
    freeze: bool = Field(True, description="embeddings are computed once; needs weights")
    separator: str = Field("none", description="hpss, nmf: separated first, for models that take it")


class OptimizerRecipe(Schema):
    """The optimiser and its learning-rate groups."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: PositiveFloat = 1e-4
    weight_decay: float = Field(0.01, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    betas: tuple[float, float] = Field((0.9, 0.999), description="of adam and adamw")
    backbone_lr_scale: float = Field(1.0, ge=0, description="multiple of lr for the backbone")


class ScheduleRecipe(Schema):
    """The learning rate over the run, as a multiple of ``lr``."""

    name: Literal["constant", "cosine", "poly", "step"] = "constant"
    warmup_steps: int = Field(0, ge=0, description="linear from 0 over these steps")
    milestones: list[PositiveInt] = Field([], description="of step: epochs after which lr is multiplied")
    gamma: float = Field(0.1, gt=0, le=1, description="of step: the factor")
    power: float = Field(0.9, gt=0, description="of poly: (1 - progress) ** power")


class ValidationRecipe(Schema):
    """When the validation split is scored."""

    every: PositiveInt = Field(1, description="epochs")
    first: PositiveInt = Field(1, description="epoch of the first validation, counted from 1")
    every_steps: PositiveInt | None = Field(None, description="optimiser steps, instead of epochs")

    @model_validator(mode="after")
    def _one_rule(self) -> ValidationRecipe:
        if self.every_steps is not None and (self.every, self.first) != (1, 1):
            raise ValueError("validation counts either in epochs (every, first) or in every_steps, not both")
        return self


class SelectRecipe(Schema):
    """Which weights the run ends with; chosen on val, never on test."""

    mode: Literal["best", "last"] = "best"
    metric: str | None = Field(None, description="None: J for s4 and ms3, mIoU for avss")


class Recipe(Schema):
    """Everything that decides a training run."""

    source: str = Field("", description="where the values come from")
    image_size: PositiveInt = Field(224, description="side of the network's input, pixels")
    fit: Literal["squeeze", "pad"] = Field("squeeze", description="how frames get there in evaluation")
    train_fit: Fit = Field("squeeze", description="in training; crop and pad keep the aspect")
    frames: PositiveInt | None = Field(None, description="of a training clip, evenly spaced; None: all")
    options: dict[str, Any] = Field({}, description="build options of the method")
    backbone: BackboneRecipe = BackboneRecipe()
    audio: AudioRecipe = AudioRecipe()
    maskige: str | None = Field(None, description="where maskiges come from: published, or a segmenter")
    optimizer: OptimizerRecipe = OptimizerRecipe()
    schedule: ScheduleRecipe = ScheduleRecipe()
    epochs: PositiveInt | None = None
    iterations: PositiveInt | None = Field(None, description="optimiser steps, instead of epochs")
    batch_size: PositiveInt = 2
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    accumulate: PositiveInt = Field(1, description="micro-batches that a batch is worked through in")
    activation_checkpointing: bool = Field(
        False, description="recompute the backbone's activations: memory for time"
    )
    channels_last: bool = Field(False, description="weights of convolutions with channels innermost")
    compile: bool = Field(False, description="torch.compile losses and predictions")
    clip_norm: PositiveFloat | None = Field(None, description="largest gradient norm")
    augment: Augment = Field(Augment(), description="what is drawn for a clip in training")
    supplement: str | None = Field(
        None, description="s4, ms3: where pseudo-masks of S4's unlabelled training frames come from"
    )
    validation: ValidationRecipe = ValidationRecipe()
    select: SelectRecipe = SelectRecipe()
    protocols: list[str] = Field([], description="scored into the record beside the canonical one")
    init_skip: list[str] = Field(
        [], description="beginnings of entries' names that --init does not take over"
    )

    @model_validator(mode="after")
    def _one_length(self) -> Recipe:
        if (self.epochs is None) == (self.iterations is None):
            raise ValueError("a recipe needs either epochs or iterations, not both")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in YAML."""
        return self.model_dump(mode="json")

    def metric(self, task: Task) -> str:
        """The validation metric that selects the weights."""
        return self.select.metric or ("mIoU" if task.semantic else "J")
