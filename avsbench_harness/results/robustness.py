"""Robustness records by ``avsb robustness``: one JSON file per run and split in ``results/robustness/``.

A record is immutable and does not depend on the machine. Beside ``<name>.json``, ``<name>.clips.csv`` holds
the scores of every clip under every condition in rows of ``condition``, ``clip``, ``source`` (the clip whose
recording was used or added) and the columns of a run's per-clip file, in ``overlap`` the mean IoU with the
clean prediction, and in ``area_1`` to ``area_T`` the predicted share of every frame; for avss
``<name>.classes.csv`` holds the sums per clip and class, with ``wrong`` and ``truth``, see
:class:`.robustness.clip_values.ClassAreas`. Every value of a record follows from these tables.

Format 1, the first one, has the conditions clean and swapped, and neither areas nor the metrics that need
them. Records of format 1 are valid; `avsb robustness` replaces one by a record of format 2 that has all of
its values and more conditions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from avsbench_harness.errors import UsageError
from avsbench_harness.files import atomic_write, read_json, write_json
from avsbench_harness.results.record import DataEntry, ScoreEntry, classes_file, clips_file
from avsbench_harness.schema import Schema

if TYPE_CHECKING:
    import pandas as pd

ROBUSTNESS_FORMAT: Literal[2] = 2

#: Subfolder of the results folder with the robustness records.
FOLDER = "robustness"

_Sha256 = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]


class EstimateEntry(Schema):
    """A value with its interval.

    Attributes:
        value: the value; ``None`` if it is undefined.
        interval: 95 % interval by paired bootstrap over clips; ``None`` with fewer than two clips.
    """

    value: float | None
    interval: tuple[float, float] | None


class SNREntry(Schema):
    """The curve of a metric over the signal-to-noise ratio, protocol ``snr_area/1``.

    Attributes:
        metric: the first main metric (J, mIoU).
        snrs: ratios of the measured mixtures, dB, ascending.
        values: value of the metric at each.
        area: area under the curve.
    """

    metric: str
    snrs: list[int]
    values: list[float | None]
    area: EstimateEntry


class ConditionEntry(Schema):
    """The results under one condition.

    Attributes:
        condition: name of the condition.
        submission_sha256: SHA-256 of the predictions.
        score: canonical scores.
        pairs: fingerprint of the pairs of clip and recording; ``None`` without recordings of other clips.
        gain: per main metric the audio gain, clean minus the condition; ``None`` for ``clean``.
        sensitivity: audio sensitivity, in [0, 1]; ``None`` for ``clean``.
        version: of the change of the recordings; ``None`` if they are not changed.
        metrics: the metrics of :mod:`.robustness.metrics` by name; ``None`` in format 1.
        pia: the curve of ``auc_n/1`` at thresholds 0, 0.05, ..., 1; ``None`` if it is not defined.
        class_fpr: ``class_fpr/1`` of the classes with wrong pixels, for avss.
    """

    condition: str
    submission_sha256: _Sha256
    score: ScoreEntry
    pairs: _Sha256 | None = None
    gain: dict[str, EstimateEntry] | None = None
    sensitivity: Annotated[float, Field(ge=0, le=1)] | None = None
    version: int | None = None
    metrics: dict[str, EstimateEntry] | None = None
    pia: list[float] | None = None
    class_fpr: dict[str, float] | None = None


class RobustnessRecord(Schema):
    """A run under several audio conditions, on the same clips.

    Attributes:
        run_id, spec_hash: of the run.
        task, data: task, and data set, split and ground truth.
        left_out: ids of the clips that a condition leaves out, and that are scored under none.
        conditions: the results; ``clean`` is the first.
        unavailable: conditions that were asked for and are not available, with the reasons.
        snr: the curve over the mixtures; ``None`` with fewer than two.
    """

    format: Literal[1, 2] = ROBUSTNESS_FORMAT
    run_id: str
    spec_hash: _Sha256
    task: str
    data: DataEntry
    left_out: list[str]
    conditions: list[ConditionEntry]
    unavailable: dict[str, str] = Field(default_factory=dict)
    snr: SNREntry | None = None

    @property
    def name(self) -> str:
        """Unique name, the stem of the file."""
        return record_name(self.run_id, self.data.split)

    def condition(self, name: str) -> ConditionEntry | None:
        """Return the results under a condition, ``None`` if there are none."""
        return next((entry for entry in self.conditions if entry.condition == name), None)


def record_name(run_id: str, split: str) -> str:
    """The stem of the file of a run's robustness record."""
    return run_id if split == "test" else f"{run_id}-{split}"


def robustness_file(results: Path, run_id: str, split: str) -> Path:
    """The file of a run's robustness record in a results folder."""
    return results / FOLDER / f"{record_name(run_id, split)}.json"


def write_robustness(
    path: Path,
    record: RobustnessRecord,
    clips: pd.DataFrame,
    classes: pd.DataFrame | None,
    *,
    extended: RobustnessRecord | None = None,
) -> None:
    """Write a robustness record and its tables.

    Args:
        path: see :func:`robustness_file`.
        record: the record.
        clips: the per-clip table.
        classes: the sums per clip and class of all conditions, for avss.
        extended: the record in that file, which the new one may replace if it has all of its values.

    Raises:
        UsageError: the record exists and is not extended, or one of its values would change.
    """
    if extended is not None:
        for changed in changed_values(extended, record):
            raise UsageError(
                f"{path} cannot be extended, because {changed} would change; remove it to measure the run "
                "again."
            )
    elif path.exists():
        raise UsageError(f"{path} exists, and records are immutable; remove it to measure the run again.")
    for file, table in ((clips_file(path), clips), (classes_file(path), classes)):
        if table is not None:
            with atomic_write(file) as opened:
                table.to_csv(opened, index=False, lineterminator="\n", float_format="%.17g")
    write_json(path, record.model_dump(mode="json"))


def changed_values(old: RobustnessRecord, new: RobustnessRecord) -> list[str]:
    """The values of a record that another one lacks or changes, apart from those of later formats."""
    names = ("run_id", "spec_hash", "task", "data", "left_out")
    found = [name for name in names if getattr(old, name) != getattr(new, name)]
    for entry in old.conditions:
        other = new.condition(entry.condition)
        if other is None:
            found.append(entry.condition)
            continue
        ours, theirs = entry.model_dump(), other.model_dump()
        found += [
            f"{name} of {entry.condition}"
            for name, value in ours.items()
            if value is not None and value != theirs[name]
        ]
    return found


def read_robustness(path: Path) -> RobustnessRecord:
    """Read one robustness record, without checks of its values.

    Raises:
        UsageError: the file does not hold a robustness record.
    """
    return RobustnessRecord.parse(read_json(path), str(path), "a robustness record")


def robustness_files(results: Path) -> list[Path]:
    """The files of all robustness records in a results folder, sorted by name."""
    return sorted((results / FOLDER).glob("*.json"))
