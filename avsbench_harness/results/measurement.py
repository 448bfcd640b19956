"""Measurements of speed and memory by ``avsb bench``, one JSON file each in ``results/bench/``.

A repeated measurement replaces its file. Leaderboards show the speed and memory of these files.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from avsbench_harness.files import read_json, sha256_json, write_json
from avsbench_harness.results.record import CostEntry, EnvironmentEntry, Record, recipe_value
from avsbench_harness.schema import Schema

MEASUREMENT_FORMAT: Literal[1] = 1

#: Subfolder of the results folder with the measurements.
FOLDER = "bench"


class Spread(Schema):
    """Median, minimum and maximum of repeated timings."""

    median: PositiveFloat
    least: PositiveFloat
    most: PositiveFloat

    @model_validator(mode="after")
    def _in_order(self) -> Spread:
        if not self.least <= self.median <= self.most:
            raise ValueError("the median does not lie between the least and the most")
        return self

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of the values."""
        return cls(median=statistics.median(values), least=min(values), most=max(values))


class SpeedEntry(Schema):
    """Speed of a forward pass or a training step.

    Attributes:
        clips_per_second: wall-clock time on the CPU, CUDA events on CUDA.
        multiple: time divided by that of the visual backbone alone; processor time on the CPU.
    """

    clips_per_second: Spread
    multiple: Spread


class DeviceEntry(Schema):
    """Device of a measurement: kind, product name, and number of threads on a CPU."""

    kind: Literal["cpu", "cuda"]
    name: str
    threads: PositiveInt | None = None


class BatchEntry(Schema):
    """Batch of a measurement: clips, frames per clip, image side in pixels, and annotated frames."""

    clips: PositiveInt
    frames: PositiveInt
    image_size: PositiveInt
    annotated: Literal["first", "all"]


class LoadingEntry(Schema):
    """Time that the training loop waits for data.

    Attributes:
        waiting: share of the loop's time, in [0, 1].
        data: name of the data set, as in records.
        synthetic: whether the data set is synthetic.
        workers: number of DataLoader worker processes.
        batches: number of measured batches.
    """

    waiting: float = Field(ge=0, le=1)
    data: str
    synthetic: bool
    workers: int = Field(ge=0)
    batches: PositiveInt


class Measurement(Schema):
    """Speed and memory of one model on one device, in one precision and with one batch shape.

    Attributes:
        code: version of the method's code, as in a run's spec.
        options: build options of the method, as in a recipe.
        changes: overrides of the method's full recipe by dotted key, except batch and precision.
        repeats: timed repetitions.
        cost: parameters and 10^9 MACs of one clip of the task's maximum length.
        forward: forward pass without gradients.
        training: forward, loss, backward and optimiser step.
        memory_gib: peak memory of training in GiB; ``None`` if the system does not report it.
    """

    format: Literal[1] = MEASUREMENT_FORMAT
    created: str
    method: str
    variant: str
    backbone: str
    task: str
    code: str
    options: dict[str, Any]
    changes: dict[str, Any]
    device: DeviceEntry
    precision: Literal["fp32", "bf16", "fp16"]
    batch: BatchEntry
    repeats: PositiveInt
    cost: CostEntry
    forward: SpeedEntry
    training: SpeedEntry
    memory_gib: PositiveFloat | None
    loading: LoadingEntry
    environment: EnvironmentEntry

    @property
    def name(self) -> str:
        """Unique name, the stem of the file."""
        parts: list[str] = [
            self.task, self.method, self.variant, self.backbone, self.device.kind, self.precision,
            f"b{self.batch.clips}",
        ]  # fmt: skip
        if self.changes:
            parts.append(sha256_json(self.changes)[:8])
        return "-".join(re.sub(r"[^A-Za-z0-9_]+", "_", part) for part in parts)


def write_measurement(results: Path, measurement: Measurement) -> Path:
    """Write a measurement to ``bench/`` of a results folder, replacing an older one; return its path."""
    path = results / FOLDER / f"{measurement.name}.json"
    write_json(path, measurement.model_dump(mode="json"))
    return path


def read_measurement(path: Path) -> Measurement:
    """Read one measurement.

    Raises:
        UsageError: the file does not hold a valid measurement.
    """
    return Measurement.parse(read_json(path), str(path), "a measurement")


def measurement_files(results: Path) -> list[Path]:
    """The files of all measurements in a results folder, sorted by name."""
    return sorted((results / FOLDER).glob("*.json"))


def read_measurements(results: Path) -> list[Measurement]:
    """Read all measurements in a results folder, sorted by file name."""
    return [read_measurement(path) for path in measurement_files(results)]


def find_measurement(record: Record, known: Iterable[Measurement]) -> Measurement | None:
    """Find the measurement of a record's model.

    A measurement matches if it has the record's method, variant, backbone, task, options, image size and
    number of frames, and its overrides are part of the record's recipe. A record without a spec counts as
    a run of the full recipe. CUDA is preferred, then the recipe's precision, then its batch size, then the
    first name.
    """
    recipe = (record.spec or {}).get("recipe", {})
    model = (record.method, record.variant, record.backbone, record.task)
    found = [
        one
        for one in known
        if (one.method, one.variant, one.backbone, one.task) == model
        and recipe.get("options") in (None, one.options)
        and recipe.get("image_size") in (None, one.batch.image_size)
        and recipe.get("frames") in (None, one.batch.frames)
        and all(recipe_value(recipe, key) == value for key, value in one.changes.items())
    ]
    return min(
        found,
        default=None,
        key=lambda one: (
            one.device.kind != "cuda",
            one.precision != recipe.get("precision"),
            one.batch.clips != recipe.get("batch_size"),
            one.name,
        ),
    )
