"""Run records: one JSON file per finished run, the source of every table.

Records are immutable: a run with a record is not scored again, and a leaderboard is a function of records
alone. Next to ``<run-id>.json``, ``<run-id>.clips.csv`` holds the scores of every clip, and for avss
``<run-id>.classes.csv`` holds the sums of every clip and class.
"""

from __future__ import annotations

import datetime
import logging
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from avsbench_harness import __version__
from avsbench_harness.engine.spec_hash import hashed_recipe
from avsbench_harness.errors import AvsbError, MissingDataError, UsageError, one_line
from avsbench_harness.files import atomic_write, read_json, sha256_json, write_json
from avsbench_harness.schema import Schema

if TYPE_CHECKING:
    import pandas as pd

    from avsbench_harness.scoring import Scores

logger = logging.getLogger(__name__)

RECORD_FORMAT: Literal[1] = 1

#: Run ids become file names, also those of submissions made elsewhere.
_RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


class ScoreEntry(Schema):
    """The scores of one submission under one protocol.

    Attributes:
        protocol: name of the protocol, for instance ``object/1``.
        batch: clips per batch, ``None`` if the metrics do not depend on batches.
        main: metrics shown in tables.
        metrics: metric -> value in [0, 1]; ``None`` if undefined.
        intervals: metric -> 95 % bootstrap interval over clips.
        clips: number of scored clips.
        part: scored clips: ``all``, ``public`` or ``private``.
    """

    protocol: str
    part: str = "all"
    batch: int | None = None
    main: list[str]
    metrics: dict[str, float | None]
    intervals: dict[str, tuple[float, float] | None]
    clips: int


class DataEntry(Schema):
    """The data of a run: data set, split, fingerprints of the ground truth (if scored) and of the data."""

    name: str
    split: str
    synthetic: bool
    solution: str | None
    fingerprint: str | None = None


class CostEntry(Schema):
    """Parameters, and 10^9 multiply-accumulates (MACs) per clip, both without the audio encoder."""

    parameters: int
    gmacs: float


class TrainingEntry(Schema):
    """Summary of the training that produced the weights, with its speed and peak memory."""

    steps: int
    selected_step: int
    validations: list[dict[str, Any]]
    seconds: float
    weights_sha256: str
    clips_per_second: float | None = None
    memory_gib: float | None = None


class GitEntry(Schema):
    """Commit of the harness's source tree, if it runs from a git checkout."""

    commit: str
    dirty: bool


class EnvironmentEntry(Schema):
    """Software and hardware of a run."""

    harness: str
    python: str
    platform: str
    packages: dict[str, str]
    device: str
    threads: int
    git: GitEntry | None


class Record(Schema):
    """One finished run: scored or failed.

    Attributes:
        status: ``done`` or ``failed``; a failed run has no scores, and its next run replaces the record.
        reason: reason of the failure, one line.
        spec: everything that determines the result of the run; ``None`` for an external submission.
        spec_hash: SHA-256 of the spec.
        notes: remarks for readers, one sentence each.
    """

    format: Literal[1] = RECORD_FORMAT
    run_id: str
    created: str
    status: Literal["done", "failed"] = "done"
    reason: str | None = None
    method: str
    variant: str | None = None
    backbone: str | None = None
    preset: str | None = None
    task: str
    seed: int | None = None
    data: DataEntry
    scores: list[ScoreEntry]
    training: TrainingEntry | None = None
    cost: CostEntry | None = None
    submission_sha256: str | None
    environment: EnvironmentEntry
    spec: dict[str, Any] | None = None
    spec_hash: str | None = None
    notes: list[str] = Field([])

    @property
    def recipe_hash(self) -> str | None:
        """First 8 digits of the hash of the spec without seed and data; equal for the seeds of one row."""
        if self.spec is None:
            return None
        # Runs with different seeds may start from different weights and still form one row.
        decided = {key: value for key, value in self.spec.items() if key not in ("seed", "data", "init")}
        decided["from_weights"] = bool(self.spec.get("init"))
        # Neither the origin of the values nor kept weights change the result; the spec's hash ignores them.
        recipe = hashed_recipe(decided["recipe"])
        decided["recipe"] = {key: value for key, value in recipe.items() if key not in ("source", "keep")}
        return sha256_json(decided)[:8]

    def score(self, protocol: str, part: str = "all") -> ScoreEntry | None:
        """Return the scores under a protocol and over a part of the clips, ``None`` if there are none."""
        found = (entry for entry in self.scores if (entry.protocol, entry.part) == (protocol, part))
        return next(found, None)


def write_record(path: Path, record: Record, scores: Scores) -> None:
    """Write the record and the per-clip files of a scored run; replaces only the record of a failed run.

    Args:
        path: ``<run-id>.json``.
        record: the record.
        scores: scores under the canonical protocol, for the per-clip files.

    Raises:
        UsageError: the run has a record with scores.
    """
    if path.exists() and read_record(path).status == "done":
        raise UsageError(f"{path} exists, and records are immutable; remove it to score the run again.")
    _write_table(clips_file(path), scores.per_clip)
    if scores.per_clip_class is not None:
        _write_table(classes_file(path), scores.per_clip_class)
    write_json(path, record.model_dump(mode="json"))


def write_failure(path: Path, record: Record) -> None:
    """Write the record of a failed run, unless the run has a record with scores."""
    if not (path.exists() and read_record(path).status == "done"):
        write_json(path, record.model_dump(mode="json"))


def is_run_id(text: str) -> bool:
    """Whether a text can be a run's id, and so a file name."""
    return _RUN_ID.fullmatch(text) is not None


def clips_file(path: Path) -> Path:
    """Path of the per-clip file of a record."""
    return path.with_suffix(".clips.csv")


def classes_file(path: Path) -> Path:
    """Path of the file with the sums per clip and class of a record of avss."""
    return path.with_suffix(".classes.csv")


def _write_table(path: Path, table: pd.DataFrame) -> None:
    with atomic_write(path) as file:
        table.to_csv(file, index=False, lineterminator="\n", float_format="%.17g")


def read_record(path: Path) -> Record:
    """Read one record.

    Raises:
        MissingDataError: the file does not exist or cannot be read.
        UsageError: the file does not hold a valid record.
    """
    try:
        values = read_json(path)
    except OSError as error:
        raise MissingDataError(f"Cannot read {path}: {error.strerror}.") from None
    return parse_record(values, str(path))


def parse_record(values: object, where: str) -> Record:
    """Validate the JSON values of a record; ``where`` names its file.

    Raises:
        UsageError: they are not those of a record.
    """
    return Record.parse(values, where, "a record")


def read_records(folder: Path) -> list[Record]:
    """Read the records in a folder, sorted by run id, without the unreadable ones and without checks."""
    records = []
    for path in sorted(folder.glob("*.json")):
        try:
            records.append(read_record(path))
        except AvsbError as error:
            logger.warning(f"Skipping the record {path.name}: {one_line(error)}")
    return records


def recipe_value(recipe: Mapping[str, Any], key: str, default: object = None) -> Any:
    """Return the value of a recorded recipe at a dotted key, ``default`` if the recipe lacks it."""
    value: Any = recipe
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return default
        value = value[part]
    return value


def environment(device: str, threads: int | None = None) -> EnvironmentEntry:
    """Describe the software and hardware of this process.

    Args:
        device: of the run.
        threads: of torch on the CPU in the run's training; by default those of this process.
    """
    return EnvironmentEntry(
        harness=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        packages=_versions(("torch", "torchvision", "timm", "numpy", "scikit-image", "resampy")),
        device=device,
        threads=threads or _threads(),
        git=_git(),
    )


def _threads() -> int:
    """The number of torch's threads in this process; without torch, the number that it would use."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if re.fullmatch("[1-9][0-9]{0,3}", wanted) else os.cpu_count() or 1


def now() -> str:
    """The current time in UTC, ISO 8601 with seconds."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _versions(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git() -> GitEntry | None:
    """Commit of the source tree of this file, independent of the working directory."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit = _run_git(root, "rev-parse", "HEAD")
        changes = _run_git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return GitEntry(commit=commit, dirty=bool(changes))


def _run_git(root: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=20
    )
    return result.stdout.strip()
