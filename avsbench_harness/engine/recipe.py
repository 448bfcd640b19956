"""The recipe: everything that decides a training run, as YAML, validated on reading.

A method's ``recipes.yaml`` holds presets (``full``, ``smoke``); each has a ``base``, and overrides per task,
per backbone, per backbone within a task, and per variant, laid on it in this order; a variant's have the same
parts. A user's file and ``--set key=value`` come last.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import yaml
from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from avsbench_harness.data.augment import Augment
from avsbench_harness.errors import UsageError, unknown
from avsbench_harness.method import Method
from avsbench_harness.schema import Schema
from avsbench_harness.tasks import Task

#: As ``data.decoded.Fit``, which needs torch.
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


#: Keys of a recipe that the first records do not have.
_LATER = ("accumulate", "checkpointing", "channels_last", "compile")


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
    checkpointing: bool = Field(False, description="recompute the backbone's activations: memory for time")
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

    @model_serializer(mode="wrap")
    def _without_idle(self, values: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without later keys that are at their defaults: the hashes of older specs stay as they are."""
        idle = {name for name in _LATER if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in values(self).items() if name not in idle}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in YAML."""
        return self.model_dump(mode="json")

    def metric(self, task: Task) -> str:
        """The validation metric that selects the weights."""
        return self.select.metric or ("mIoU" if task.semantic else "J")


def presets(method: Method) -> tuple[str, ...]:
    """The names of a method's presets."""
    return tuple(_presets(method.folder / "recipes.yaml"))


def resolve(
    method: Method,
    task: Task,
    backbone: str,
    *,
    variant: str | None = None,
    preset: str = "full",
    file: Path | None = None,
    assignments: Sequence[str] = (),
) -> Recipe:
    """The recipe of one run.

    Args:
        method: whose ``recipes.yaml`` is read.
        task: selects the overrides under ``tasks``.
        backbone: selects the overrides under ``backbones``.
        variant: selects those under ``variants``; ``None``: the method's first.
        preset: ``full``, ``smoke`` or another of the method's.
        file: YAML laid on the preset.
        assignments: ``key.sub=value`` laid on that, the value read as YAML.
    """
    path = method.folder / "recipes.yaml"
    known = _presets(path)
    if preset not in known:
        raise unknown(f"preset of {method.name}", preset, known)
    own = known[preset].get("variants", {}).get(variant or method.variants[0], {})
    values: dict[str, Any] = {}
    for layers in (known[preset], own):
        of_task = dict(layers.get("tasks", {}).get(task.name, {}))
        of_both = of_task.pop("backbones", {}).get(backbone, {})
        of_backbone = layers.get("backbones", {}).get(backbone, {})
        for layer in (layers.get("base", {}), of_task, of_backbone, of_both):
            values = _lay(values, layer)
    where = f"preset '{preset}' of {path.name} of {method.name}"
    recipe = Recipe.parse(values, where)
    if file is not None:
        values = _lay(values, read_yaml(file))
        recipe = Recipe.parse(values, str(file))
    for assignment in assignments:
        values = _lay(values, _assignment(assignment))
        recipe = Recipe.parse(values, f"--set {assignment}")
    return recipe


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping with plain values only; anything else is a ``UsageError``."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"There is no file {path}.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path} must hold keys and values, not {type(values).__name__}.")
    return values


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid on ``base``; mappings are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


#: Keys of which one drops others, by the mapping that they are in.
_INSTEAD = (
    ("", "epochs", ("iterations",)),
    ("", "iterations", ("epochs",)),
    ("validation", "every_steps", ("every", "first")),
    ("validation", "every", ("every_steps",)),
    ("validation", "first", ("every_steps",)),
)


def _lay(values: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge, where naming one of epochs and iterations drops the other, and so for validation's rules."""
    for place, one, others in _INSTEAD:
        below, above = (layer.get(place, {}) if place else layer for layer in (values, over))
        if not (isinstance(below, Mapping) and isinstance(above, Mapping)) or above.get(one) is None:
            continue
        kept = {key: value for key, value in below.items() if key not in others or key in above}
        values = {**values, place: kept} if place else kept
    return merge(values, over)


def assignments(changes: Mapping[str, Any]) -> tuple[str, ...]:
    """Recipe changes as ``--set`` takes them; a JSON value is also a YAML one."""
    return tuple(f"{key}={json.dumps(value)}" for key, value in changes.items())


def split_assignment(text: str) -> tuple[str, Any]:
    """``key.sub=value`` as key and value, the value read as YAML; anything else is a ``UsageError``."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set takes key=value, for example --set optimizer.lr=1.0e-4; got '{text}'.")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        raise UsageError(f"The value in '--set {text}' is not valid YAML.") from None


def _assignment(text: str) -> dict[str, Any]:
    key, parsed = split_assignment(text)
    for part in reversed(key.split(".")):
        parsed = {part: parsed}
    assert isinstance(parsed, dict)
    return parsed


@functools.cache
def _presets(path: Path) -> dict[str, dict[str, Any]]:
    known = read_yaml(path)
    for name, layers in known.items():
        extra = set(layers) - {"base", "tasks", "backbones", "variants"}
        if extra:
            raise UsageError(
                f"Preset '{name}' of {path} has '{min(extra)}' beside base, tasks, backbones and variants."
            )
    return known
