"""The recipe: everything that decides a training run. Imports no torch."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from avsbench_harness.recipe.augment import Augment
from avsbench_harness.schema import PlainValues, Schema
from avsbench_harness.tasks import Task

#: Resizing to the square network input; pad keeps the aspect ratio and fills right and bottom with zeros.
Fit: TypeAlias = Literal["squeeze", "crop", "pad"]

#: The last batch of an epoch, if there are too few clips for it: smaller, left out, or filled with the first
#: clips of the next epoch.
PartialBatches: TypeAlias = Literal["keep", "drop", "wrap"]

#: Random seeds; torch and NumPy accept all of them.
MAX_SEED = 2**63
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]

Count = Annotated[int, Field(gt=0, le=10**9)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class BackboneRecipe(Schema):
    """Initial weights and training of the visual backbone."""

    pretrained: bool = Field(True, description="ImageNet weights; the run fails without them")
    freeze_epochs: NonNegativeInt | Literal["all"] = Field(0, description="epochs with frozen parameters")
    freeze_norm: bool = Field(False, description="keep its batch norms in evaluation mode")
    drop_path_rate: float | None = Field(None, ge=0, lt=1, description="stochastic depth; None: timm's")
    cache: bool = Field(False, description="compute the maps of a frozen backbone once, in evaluation mode")

    @model_validator(mode="after")
    def _cached_is_frozen(self) -> BackboneRecipe:
        if self.cache and self.freeze_epochs != "all":
            raise ValueError("backbone.cache needs a frozen backbone: set backbone.freeze_epochs to all")
        return self


class AudioRecipe(Schema):
    """The audio encoder; frozen if its weights are in the store, else trained with the model."""

    encoder: Literal["vggish", "compact", "compact-esc10"] = "vggish"
    freeze: bool = Field(True, description="compute the embeddings once; needs weights")
    separator: str = Field("none", description="source separation (hpss, nmf), for methods that support it")


class OptimizerRecipe(Schema):
    """The optimiser and the learning rate of its parameter groups."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: PositiveFloat = 1e-4
    weight_decay: float = Field(0.01, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="of adam and adamw")
    backbone_lr_scale: float = Field(1.0, ge=0, description="multiple of lr for the backbone")


class ScheduleRecipe(Schema):
    """The learning rate over the run, as a multiple of ``lr``."""

    name: Literal["constant", "cosine", "poly", "step"] = "constant"
    warmup_steps: int = Field(0, ge=0, le=10**9, description="linear warm-up from 0")
    milestones: list[Count] = Field([], description="of step: epochs after which gamma applies")
    gamma: float = Field(0.1, gt=0, le=1, description="of step: the factor")
    power: float = Field(0.9, gt=0, description="of poly: (1 - progress) ** power")

    @model_validator(mode="after")
    def _steps_have_milestones(self) -> ScheduleRecipe:
        if self.name == "step" and not self.milestones:
            raise ValueError("the schedule step needs milestones, such as schedule.milestones=[20, 30]")
        if any(one >= two for one, two in pairwise(self.milestones)):
            raise ValueError("the milestones of a schedule must ascend")
        return self


class ValidationRecipe(Schema):
    """Schedule of validations."""

    every: Count = Field(1, description="epochs between validations")
    first: Count = Field(1, description="epoch of the first validation, counted from 1")
    every_steps: Count | None = Field(None, description="optimiser steps, instead of epochs")
    last: bool = Field(True, description="validate after the last step, whether it is due or not")

    @model_validator(mode="after")
    def _one_rule(self) -> ValidationRecipe:
        if self.every_steps is not None and (self.every, self.first) != (1, 1):
            raise ValueError("validation counts either in epochs (every, first) or in every_steps, not both")
        return self


class SelectRecipe(Schema):
    """Selection of the final weights, on val, never on test."""

    mode: Literal["best", "last"] = "best"
    metric: str | None = Field(None, description="None: J for s4 and ms3, mIoU for avss")
    protocol: str | None = Field(None, description="definition of the metric; None: the canonical protocol")


class KeepRecipe(Schema):
    """Weights that are kept besides the selected ones; `avsb predict --saved` predicts with them."""

    best: Count = Field(1, description="number of best validations; 1: only the selected weights")
    last: int = Field(0, ge=0, le=10**9, description="number of last epochs")
    every: Count | None = Field(None, description="epochs between weights that are kept")


class EarlyStoppingRecipe(Schema):
    """End of a training whose validations do not improve."""

    patience: Count = Field(description="validations in a row without a better value")
    metric: str | None = Field(None, description="on val, larger is better; None: that of select")


class Recipe(Schema):
    """Everything that decides a training run."""

    source: str = Field("", description="source of the values")
    image_size: int = Field(224, gt=0, le=4096, description="side of the network's input, pixels")
    fit: Literal["squeeze", "pad"] = Field("squeeze", description="resizing in evaluation")
    train_fit: Fit = Field("squeeze", description="resizing in training; crop and pad keep the aspect ratio")
    frames: Count | None = Field(None, description="per training clip, evenly spaced; None: all")
    options: PlainValues = Field({}, description="build options of the method")
    backbone: BackboneRecipe = BackboneRecipe()
    audio: AudioRecipe = AudioRecipe()
    maskige: str | None = Field(None, description="source of maskiges: published, or a segmenter")
    processed_frames: bool = Field(
        False, description="avss: frames that COMBO's preprocessing saved again, if they are there"
    )
    optimizer: OptimizerRecipe = OptimizerRecipe()
    schedule: ScheduleRecipe = ScheduleRecipe()
    epochs: Count | None = None
    iterations: Count | None = Field(None, description="optimiser steps, instead of epochs")
    batch_size: Count = 2
    partial_batches: PartialBatches = Field(
        "keep", description="an epoch's last batch: smaller, left out, or filled from the next epoch"
    )
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    accumulate: Count = Field(1, description="micro-batches per batch (gradient accumulation)")
    activation_checkpointing: bool = Field(
        False, description="recompute the backbone's activations in the backward pass"
    )
    channels_last: bool = Field(False, description="channels-last memory format")
    compile: bool = Field(False, description="torch.compile losses and predictions")
    clip_norm: PositiveFloat | None = Field(None, description="maximum gradient norm")
    augment: Augment = Field(Augment(), description="augmentation of training clips")
    supplement: str | None = Field(
        None, description="s4, ms3: source of pseudo-masks of S4's unlabelled training frames"
    )
    validation: ValidationRecipe = ValidationRecipe()
    select: SelectRecipe = SelectRecipe()
    keep: KeepRecipe = Field(KeepRecipe(), description="weights that are kept besides the selected ones")
    early_stopping: EarlyStoppingRecipe | None = Field(
        None, description="end before epochs or iterations, by the validations; None: never"
    )
    protocols: list[str] = Field([], description="protocols scored in addition to the canonical one")
    init_skip: list[str] = Field([], description="state-dict key prefixes that --init does not load")

    @model_validator(mode="after")
    def _one_length(self) -> Recipe:
        if self.epochs is not None and self.iterations is not None:
            raise ValueError("a recipe has either epochs or iterations, not both; remove one of them")
        if self.epochs is None and self.iterations is None:
            raise ValueError("a recipe needs either epochs or iterations")
        return self

    @model_validator(mode="after")
    def _cached_views(self) -> Recipe:
        augment = self.augment
        if self.backbone.cache and (augment.affine or augment.scale or augment.jitter):
            raise ValueError(
                "backbone.cache holds the maps of the plain and the flipped clips, so that augment can only "
                "have flip; remove affine, scale and jitter, or backbone.cache"
            )
        return self

    @model_validator(mode="after")
    def _whole_frames(self) -> Recipe:
        if self.processed_frames and "pad" in (self.fit, self.train_fit):
            raise ValueError("processed_frames are squares, so that fit and train_fit cannot be pad")
        return self

    @model_validator(mode="after")
    def _stopping_validates(self) -> Recipe:
        if self.early_stopping is not None and self.select.mode == "last":
            raise ValueError("early_stopping needs validations, and select.mode last makes none")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in YAML."""
        return self.model_dump(mode="json")

    def metric(self, task: Task) -> str:
        """The validation metric that selects the weights."""
        return self.select.metric or ("mIoU" if task.semantic else "J")
