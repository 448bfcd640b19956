"""The measurement: one JSON file for what one network costs on one device, in ``results/bench/``.

A network that is measured again has its file replaced; leaderboards take speed and memory from these files.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from avsbench_harness.errors import UsageError
from avsbench_harness.files import read_json, sha256_json, write_json
from avsbench_harness.results.record import CostEntry, EnvironmentEntry, Record
from avsbench_harness.schema import Schema

MEASUREMENT_FORMAT: Literal[1] = 1

#: Folder of the measurements, beside the records.
FOLDER = "bench"


class Spread(Schema):
    """The median of some repeats, the least and the most of them."""

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
        """The spread of repeats."""
        return cls(median=statistics.median(values), least=min(values), most=max(values))


class SpeedEntry(Schema):
    """How fast one kind of work goes.

    Attributes:
        clips_per_second: by the clock on the CPU, by CUDA's events on CUDA.
        multiple: of the bare visual backbone's time for the same work; in processor time on the CPU.
    """

    clips_per_second: Spread
    multiple: Spread


class DeviceEntry(Schema):
    """Where it was measured: the kind, what the maker calls it, and the threads that a CPU was given."""

    kind: Literal["cpu", "cuda"]
    name: str
    threads: PositiveInt | None = None


class BatchEntry(Schema):
    """What a network saw: clips, frames, the side of its images in pixels, and supervised frames."""

    clips: PositiveInt
    frames: PositiveInt
    image_size: PositiveInt
    annotated: Literal["first", "all"]


class LoadingEntry(Schema):
    """How long a training loop waits for its data.

    Attributes:
        waiting: share of the loop's time, in [0, 1].
        data: name of the data set, as in records.
        synthetic: whether it is.
        workers: processes that decode.
        batches: over which it was measured.
    """

    waiting: float = Field(ge=0, le=1)
    data: str
    synthetic: bool
    workers: int = Field(ge=0)
    batches: PositiveInt


class Measurement(Schema):
    """One network on one device, in one precision and with one batch.

    Attributes:
        code: version of the method's code, as in a run's spec.
        options: build options of the method, as in a recipe.
        changes: to the method's full recipe, by dotted key; apart from batch and precision.
        repeats: of each time.
        cost: parameters, and 10^9 multiply-accumulates of one clip of the task's full length.
        forward: the forward pass without gradients.
        training: forward, loss, backward and optimiser.
        memory_gib: peak of training; ``None`` where the system does not tell.
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
        """What tells it from others; the stem of its file."""
        parts: list[str] = [
            self.task, self.method, self.variant, self.backbone, self.device.kind, self.precision,
            f"b{self.batch.clips}",
        ]  # fmt: skip
        if self.changes:
            parts.append(sha256_json(self.changes)[:8])
        return "-".join(re.sub(r"[^A-Za-z0-9_]+", "_", part) for part in parts)


def write_measurement(results: Path, measurement: Measurement) -> Path:
    """Write a measurement beside the records of a folder, in place of an older one; returns its path."""
    path = results / FOLDER / f"{measurement.name}.json"
    write_json(path, measurement.model_dump(mode="json"))
    return path


def read_measurement(path: Path) -> Measurement:
    """Read one measurement; a file that is none is a ``UsageError``."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise UsageError(f"{path} is not a measurement: it holds no keys and values.")
    return Measurement.parse(values, str(path))


def measurement_files(results: Path) -> list[Path]:
    """The files of all measurements beside the records of a folder, by name."""
    return sorted((results / FOLDER).glob("*.json"))


def read_measurements(results: Path) -> list[Measurement]:
    """All measurements beside the records of a folder, by file name."""
    return [read_measurement(path) for path in measurement_files(results)]


def measured(record: Record, known: Iterable[Measurement]) -> Measurement | None:
    """The measurement of a record's network, with the options and at the size of its training, if any.

    What was changed for a measurement must be so in the record's recipe. A record without a spec states none
    of this, and is taken to be of the full recipe. Of several measurements the one on CUDA, then in the
    recipe's precision, then with its batch, then the first by name.
    """
    recipe = (record.spec or {}).get("recipe", {})
    network = (record.method, record.variant, record.backbone, record.task)
    found = [
        one
        for one in known
        if (one.method, one.variant, one.backbone, one.task) == network
        and recipe.get("options") in (None, one.options)
        and recipe.get("image_size") in (None, one.batch.image_size)
        and recipe.get("frames") in (None, one.batch.frames)
        and all(_at(recipe, key) == value for key, value in one.changes.items())
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


def _at(recipe: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, ``None`` where there is none."""
    value: Any = recipe
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
