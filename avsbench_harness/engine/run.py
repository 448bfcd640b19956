"""A run: its spec, which determines the result, and its files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.engine.spec_hash import spec_hash
from avsbench_harness.method import Loops, Method
from avsbench_harness.recipe.schema import Recipe
from avsbench_harness.robustness.conditions import CLEAN
from avsbench_harness.schema import Schema
from avsbench_harness.tasks import MASK_SIZE, Split, Task, get_task
from avsbench_harness.weights.spec import BackboneWeightsSpec, WeightsSpec

if TYPE_CHECKING:
    from avsbench_harness.nn.model import Model

SPEC_FORMAT: Literal[3] = 3


class DataSpec(Schema):
    """The data set of a run.

    Attributes:
        name, fingerprint, synthetic: of the data set.
        supplement: fingerprint of the S4 clips that are added to its training.
        processed: fingerprint of the processed frames that are read instead of the original ones.
    """

    name: str
    fingerprint: str
    synthetic: bool
    supplement: str | None = None
    processed: str | None = None


class AudioSpec(Schema):
    """The audio encoder of a run: frozen with the weights of this SHA-256, or trained with the model."""

    encoder: str
    weights: str | None
    trained: bool


class RunSpec(Schema):
    """Everything that determines a run's result; the run's id ends in its hash.

    ``code`` is the version of the method's code: of the installed package, or the hash of the files of
    a method that is read from a folder. A run with ``weights`` predicts with them and is not trained; the
    training of one with ``init`` starts from those weights.
    """

    format: Literal[3] = SPEC_FORMAT
    method: str
    variant: str
    backbone: str
    task: str
    seed: int
    preset: str
    data: DataSpec
    audio: AudioSpec
    backbone_weights: BackboneWeightsSpec | None
    recipe: Recipe
    code: str
    weights: WeightsSpec | None = None
    init: WeightsSpec | None = None

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON, 64 hexadecimal digits; see :func:`spec_hash`."""
        return spec_hash(self.model_dump(mode="json"))

    @cached_property
    def run_id(self) -> str:
        """A readable name that ends in the first 10 digits of the hash; safe as a file name."""
        backbone = re.sub(r"[^A-Za-z0-9_]+", "_", self.backbone)
        return f"{self.task}-{self.method}-{backbone}-s{self.seed}-{self.hash[:10]}"


@dataclass(frozen=True)
class Run:
    """A spec with everything that is needed to execute it.

    Attributes:
        spec: the run's spec.
        method: the plugin.
        dataset: the data set that ``spec.data`` names.
        out: folder that holds ``runs/``, ``submissions/`` and ``results/``.
        loops: the default training and prediction loops.
        weights: files of the weights that the spec names by hash; keys ``audio``, ``backbone``, ``weights``,
            ``init``.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        workers: DataLoader worker processes; 0: decode in this process.
        side: height and width of the masks in submissions.
        condition: the audio condition of predictions, see :mod:`avsbench_harness.robustness.conditions`.
        saved: step of the kept weights to predict with, see :mod:`.saved_weights`; ``None`` for the selected
            ones.
        trackers: names of trackers that log the training beside ``log.jsonl``, see
            :mod:`avsbench_harness.tracking.trackers`.
    """

    spec: RunSpec
    method: Method
    dataset: Dataset
    out: Path
    loops: Loops
    weights: Mapping[str, Path] = field(default_factory=dict)
    device: str = "cpu"
    workers: int = 0
    side: int = MASK_SIZE
    condition: str = CLEAN
    saved: int | None = None
    trackers: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The run's id."""
        return self.spec.run_id

    @property
    def task(self) -> Task:
        """The task."""
        return get_task(self.spec.task)

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.spec.recipe

    @property
    def folder(self) -> Path:
        """The run's own folder: spec, log, checkpoints, weights."""
        return self.out / "runs" / self.id

    @property
    def weights_file(self) -> Path:
        """The selected weights of the training, or the kept ones to predict with."""
        if self.saved is not None:
            return self.folder / "saved" / f"step-{self.saved:08d}.safetensors"
        return self.folder / "weights.safetensors"

    @property
    def suffix(self) -> str:
        """The end of the names of predictions that are not the run's own: its condition and saved step."""
        condition = "" if self.condition == CLEAN else f"-{self.condition}"
        return condition if self.saved is None else f"-step{self.saved}{condition}"

    @property
    def record_file(self) -> Path:
        """The run's record."""
        return self.out / "results" / f"{self.id}.json"

    def submission_file(self, split: Split) -> Path:
        """The run's submission for a split; the test split's and the clean one have no suffix."""
        suffix = "" if split == "test" else f"-{split}"
        return with_side(self.out / "submissions" / f"{self.id}{suffix}{self.suffix}.npz", self.side)

    def build_model(self, *, pretrained: bool) -> Model:
        """The method's network, ``pretrained`` loads the backbone weights that the spec names, if any."""
        recipe = self.recipe
        options = dict(recipe.options)
        if recipe.backbone.drop_path_rate is not None:
            options["drop_path_rate"] = recipe.backbone.drop_path_rate
        if pretrained and "backbone" in self.weights:
            options["pretrained"] = self.weights["backbone"]
        return self.method.build(self.task, self.spec.backbone, variant=self.spec.variant, **options)


def with_side(submission: Path, side: int) -> Path:
    """The file beside a submission that holds the same run's predictions at another size."""
    return submission if side == MASK_SIZE else submission.with_stem(f"{submission.stem}-{side}")
